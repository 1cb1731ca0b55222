//! Scalars as go-yaml v3 reads them, and as kustomize carries them.
//!
//! Kustomize works on a scalar's text and style, and asks for its meaning only at the end: `1.10` as
//! an annotation is the text `1.10`, in a list of numbers it is 1.1; and a number that a patch puts
//! in the place of `"x"` becomes a text, since the quotes stay. So a scalar whose text or style the
//! meaning alone would lose is **carried**: as a string that begins with a control character, which
//! [`literal`] keeps apart from a string that itself begins so. [`settle`] gives all of a value its meaning, [`text`] reads a carried scalar.

use std::borrow::Cow;

use serde_json::{Number, Value};

/// Begins a carried plain scalar.
const PLAIN: char = '\0';

/// Begins a carried string whose quotes were not needed.
const QUOTED: char = '\u{1}';

/// Begins a carried string without quotes whose text alone would mean something else.
const TAGGED: char = '\u{2}';

/// What a plain scalar means.
pub enum Scalar {
    /// A value that JSON has too.
    Value(Value),
    /// Infinity or not a number, which JSON does not have.
    NotFinite,
}

/// A plain scalar, carried if its meaning alone would lose its text.
pub fn plain(written: &str) -> Scalar {
    match resolve(written) {
        Scalar::Value(value)
            if is_timestamp(written) || !(value.is_null() || text(&value) == written) =>
        {
            Scalar::Value(format!("{PLAIN}{written}").into())
        }
        scalar => scalar,
    }
}

/// A string in quotes, carried if they were not needed.
pub fn quoted(text: &str) -> Value {
    if needs_quotes(text) {
        text.into()
    } else {
        format!("{QUOTED}{text}").into()
    }
}

/// A string that stays one without quotes, carried if its text alone would mean something else. What
/// is put in its place later may be anything.
pub fn tagged(text: &str) -> Value {
    if needs_quotes(text) {
        format!("{TAGGED}{text}").into()
    } else {
        literal(text)
    }
}

/// A string as it is, whatever it begins with.
pub fn literal(text: &str) -> Value {
    if text.starts_with([PLAIN, QUOTED, TAGGED]) {
        format!("{QUOTED}{text}").into()
    } else {
        text.into()
    }
}

/// A scalar's text; empty for mappings and lists.
pub fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => uncarried(text).into(),
        Value::Array(_) | Value::Object(_) => "".into(),
        scalar => scalar.to_string().into(),
    }
}

/// The text of a string; `None` for all else.
pub fn string(value: &Value) -> Option<&str> {
    match value.as_str()?.strip_prefix(PLAIN) {
        Some(_) => None,
        None => value.as_str().map(uncarried),
    }
}

/// Whether it is a string that stands in quotes, needed or not.
pub fn is_quoted(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        text.starts_with(QUOTED) || (!text.starts_with(PLAIN) && needs_quotes(text))
    })
}

/// A scalar that is to get a text, and with it a meaning.
pub fn untyped() -> Value {
    PLAIN.to_string().into()
}

/// Gives a scalar another text, and leaves its type and style as they are; fails if the text is none
/// of that type.
pub fn set_text(value: &mut Value, text: &str) -> Result<(), String> {
    let (is_quoted, is_string) = (is_quoted(value), string(value).is_some());
    let is_untyped = *value == untyped();
    let mut old = value.clone();
    settle(&mut old);
    let (new, fits) = match plain(text) {
        Scalar::Value(new) => {
            let mut meaning = new.clone();
            settle(&mut meaning);
            let fits = !is_timestamp(text)
                && match &old {
                    Value::Number(number) => {
                        meaning.is_i64()
                            || meaning.is_u64()
                            || (number.is_f64() && meaning.is_f64())
                    }
                    Value::Bool(_) => meaning.is_boolean(),
                    Value::Null => meaning.is_null(),
                    _ => false,
                };
            (new, fits)
        }
        Scalar::NotFinite => (literal(text), false),
    };
    *value = if is_untyped && text.is_empty() {
        // Kustomize writes quotes: it is no null.
        literal(text)
    } else if is_untyped || fits {
        new
    } else if is_quoted {
        quoted(text)
    } else if is_string {
        literal(text)
    } else {
        return Err(format!("`{text}` is no value for what is `{old}`"));
    };
    Ok(())
}

/// Gives every carried scalar its meaning.
pub fn settle(value: &mut Value) {
    match value {
        Value::String(carried) => match carried.strip_prefix(PLAIN) {
            Some(written) => {
                *value = match (timestamp(written), resolve(written)) {
                    (Some(timestamp), _) => timestamp.into(),
                    (None, Scalar::Value(value)) => value,
                    (None, Scalar::NotFinite) => written.into(),
                }
            }
            None if carried.starts_with([QUOTED, TAGGED]) => {
                carried.remove(0);
            }
            None => {}
        },
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(members) => members.values_mut().for_each(settle),
        _ => {}
    }
}

fn uncarried(text: &str) -> &str {
    text.strip_prefix([PLAIN, QUOTED, TAGGED]).unwrap_or(text)
}

fn needs_quotes(text: &str) -> bool {
    is_timestamp(text) || !matches!(resolve(text), Scalar::Value(Value::String(_)))
}

fn is_timestamp(text: &str) -> bool {
    timestamp(text).is_some()
}

/// The meaning of a plain scalar, as go-yaml v3 resolves it (`resolve.go`).
pub fn resolve(text: &str) -> Scalar {
    Scalar::Value(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => return Scalar::NotFinite,
        _ => integer(text)
            .or_else(|| float(text))
            .unwrap_or_else(|| text.into()),
    })
}

/// Integers in every notation that Go's `strconv.ParseInt` knows with base 0.
fn integer(text: &str) -> Option<Value> {
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = unsigned.replace('_', "");
    let prefixed = |prefixes: [&str; 2]| prefixes.iter().find_map(|p| digits.strip_prefix(p));
    let (digits, radix) = if let Some(digits) = prefixed(["0x", "0X"]) {
        (digits, 16)
    } else if let Some(digits) = prefixed(["0b", "0B"]) {
        (digits, 2)
    } else if let Some(digits) = prefixed(["0o", "0O"]) {
        (digits, 8)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (&digits[1..], 8)
    } else {
        (digits.as_str(), 10)
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        0_i64.checked_sub_unsigned(magnitude).map(Value::from)
    } else {
        Some(magnitude.into())
    }
}

/// Decimal floating point numbers: `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn float(text: &str) -> Option<Value> {
    let digits = text.replace('_', "");
    let number = digits.strip_prefix(['-', '+']).unwrap_or(&digits);
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (number, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fits = all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+'));
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    if !(mantissa_fits && exponent_fits) {
        return None;
    }
    let parsed: f64 = digits.parse().ok()?;
    // A float that is whole is written without a fraction in JSON, as Go does.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only where nothing is cut off"
    )]
    if parsed.fract() == 0.0 && parsed.abs() < 1e15 {
        return Some((parsed as i64).into());
    }
    Number::from_f64(parsed).map(Value::Number)
}

/// A date or time in one of the notations that go-yaml knows, as kustomize prints it (RFC 3339).
fn timestamp(written: &str) -> Option<String> {
    let year = written.get(..4).filter(|year| all_digits(year))?;
    let mut rest = written.get(4..)?.strip_prefix('-')?;
    let month = number(&mut rest, 2, 1..=12)?;
    rest = rest.strip_prefix('-')?;
    let day = number(&mut rest, 2, 1..=31)?;
    let last_day = match month {
        2 if is_leap(year.parse().ok()?) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day > last_day {
        return None;
    }
    let date = format!("{year}-{month:02}-{day:02}");
    let Some(separator) = rest.chars().next() else {
        return Some(format!("{date}T00:00:00Z"));
    };
    rest = rest.strip_prefix(['T', 't', ' '])?;
    let hour = number(&mut rest, 2, 0..=23)?;
    rest = rest.strip_prefix(':')?;
    let minute = number(&mut rest, 2, 0..=59)?;
    rest = rest.strip_prefix(':')?;
    let second = number(&mut rest, 2, 0..=59)?;
    let mut fraction = String::new();
    if let Some(digits) = rest.strip_prefix(['.', ',']) {
        let end = digits.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, after) = digits.split_at(end);
        if digits.is_empty() {
            return None;
        }
        let kept = digits.get(..9).unwrap_or(digits).trim_end_matches('0');
        if !kept.is_empty() {
            fraction = format!(".{kept}");
        }
        rest = after;
    }
    let zone = match (separator, rest) {
        (' ', "") | ('T' | 't', "Z") => "Z",
        ('T' | 't', zone) if is_offset(zone) => zone,
        _ => return None,
    };
    let zone = if matches!(zone, "+00:00" | "-00:00") {
        "Z"
    } else {
        zone
    };
    Some(format!(
        "{date}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}"
    ))
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// Takes a number of at most `width` digits off the front.
fn number(rest: &mut &str, width: usize, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let end = rest
        .bytes()
        .take(width)
        .take_while(u8::is_ascii_digit)
        .count();
    let (digits, after) = rest.split_at(end);
    *rest = after;
    digits.parse().ok().filter(|number| range.contains(number))
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// `+hh:mm` or `-hh:mm`.
fn is_offset(zone: &str) -> bool {
    let Some((hours, minutes)) = zone
        .strip_prefix(['+', '-'])
        .and_then(|rest| rest.split_once(':'))
    else {
        return false;
    };
    let fits = |text: &str, end: u32| {
        text.len() == 2 && all_digits(text) && text.parse::<u32>().is_ok_and(|n| n < end)
    };
    fits(hours, 24) && fits(minutes, 60)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn carried(written: &str) -> Value {
        match plain(written) {
            Scalar::Value(value) => value,
            Scalar::NotFinite => unreachable!("{written}"),
        }
    }

    #[test]
    fn a_carried_scalar_keeps_its_text_and_gets_its_meaning_in_the_end() {
        let check = |written: &str, meaning: Value| {
            let mut value = carried(written);
            assert_eq!(text(&value), written);
            settle(&mut value);
            assert_eq!(value, meaning, "{written}");
        };
        check("1.10", json!(1.1));
        check("0644", json!(420));
        check("7", json!(7));
        check("true", json!(true));
        check("True", json!(true));
        check("yes", json!("yes"));
        check("2001-01-01", json!("2001-01-01T00:00:00Z"));
        check("2001-02-30", json!("2001-02-30"));
        check("2001-1-2 3:4:5.60", json!("2001-01-02T03:04:05.6Z"));
        check(
            "2001-12-14t21:59:43.10-05:00",
            json!("2001-12-14T21:59:43.1-05:00"),
        );
        check("2001-12-14T21:59:43+00:00", json!("2001-12-14T21:59:43Z"));
    }

    #[test]
    fn quotes_are_known_whether_needed_or_not() {
        for (value, expected) in [
            (quoted("x"), true),
            (quoted("1"), true),
            (quoted("2001-01-01"), true),
            (carried("x"), false),
            (carried("0644"), false),
            (json!(1), false),
        ] {
            assert_eq!(is_quoted(&value), expected, "{value}");
        }
        assert_eq!(string(&quoted("x")), Some("x"));
        assert_eq!(string(&carried("0644")), None);
        let mut odd = quoted("\0x");
        settle(&mut odd);
        assert_eq!(odd, json!("\0x"));
        let mut odd = literal("\u{1}x");
        settle(&mut odd);
        assert_eq!(odd, json!("\u{1}x"));
    }

    #[test]
    fn another_text_keeps_the_type() {
        let check = |old: Value, text: &str, expected: Option<Value>| {
            let mut value = old.clone();
            let outcome = set_text(&mut value, text);
            settle(&mut value);
            assert_eq!(outcome.ok().map(|()| value), expected, "{old} {text}");
        };
        check(json!("x"), "80", Some(json!("80")));
        check(quoted("x"), "y", Some(json!("y")));
        check(json!(80), "81", Some(json!(81)));
        check(json!(80), "x", None);
        check(json!(80), "1.5", None);
        check(json!(1.5), "2", Some(json!(2)));
        check(json!(true), "false", Some(json!(false)));
        check(json!(true), "1", None);
        check(carried("0644"), "7", Some(json!(7)));
        check(untyped(), "7", Some(json!(7)));
    }
}
