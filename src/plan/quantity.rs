//! Quantities: two spellings of one amount are the same to a server, which keeps its own
//! (`k8s.io/apimachinery/pkg/api/resource.Quantity`).

use serde_json::Value;

/// Members whose values' members are quantities.
const OF_QUANTITIES: [&str; 9] = [
    "limits",
    "requests",
    "capacity",
    "hard",
    "default",
    "defaultRequest",
    "max",
    "min",
    "overhead",
];

/// Members that are quantities themselves.
const QUANTITIES: [&str; 3] = ["sizeLimit", "averageValue", "divisor"];

/// Whether the member of this name, in one of that name, is a quantity.
pub(super) fn is_quantity(within: &str, name: &str) -> bool {
    OF_QUANTITIES.contains(&within) || QUANTITIES.contains(&name)
}

/// Whether two values are the same amount; false if either is none.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (amount(a), amount(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// The amount in billionths, the finest that a quantity can be.
fn amount(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => parse(&number.to_string()),
        Value::String(text) => parse(text),
        _ => None,
    }
}

fn parse(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-'));
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let places = u32::try_from(fraction.len()).ok()?;
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (base, exponent): (i128, u32) = match suffix {
        "n" => (10, 0),
        "u" => (10, 3),
        "m" => (10, 6),
        "" => (10, 9),
        "k" => (10, 12),
        "M" => (10, 15),
        "G" => (10, 18),
        "T" => (10, 21),
        "P" => (10, 24),
        "Ki" => (1024, 1),
        "Mi" => (1024, 2),
        "Gi" => (1024, 3),
        "Ti" => (1024, 4),
        "Pi" => (1024, 5),
        // Exponents (`1e3`) and what is larger are compared as texts.
        _ => return None,
    };
    let mut scale = base.checked_pow(exponent)?;
    if base == 1024 {
        scale = scale.checked_mul(1_000_000_000)?;
    }
    let scaled = digits.checked_mul(scale)?;
    let divisor = 10_i128.checked_pow(places)?;
    let amount = (scaled % divisor == 0).then_some(scaled / divisor)?;
    Some(if negative { -amount } else { amount })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spellings_of_one_amount_are_the_same() {
        for (a, b, expected) in [
            (json!("1000m"), json!("1"), true),
            (json!(1), json!("1"), true),
            (json!("0.5"), json!("500m"), true),
            (json!("1024Mi"), json!("1Gi"), true),
            (json!("1.5Gi"), json!("1536Mi"), true),
            (json!("-1"), json!("-1000m"), true),
            (json!("1G"), json!("1Gi"), false),
            (json!("1"), json!("2"), false),
            (json!("x"), json!("y"), false),
            (json!("."), json!("."), false),
        ] {
            assert_eq!(same(&a, &b), expected, "{a} {b}");
        }
        assert!(is_quantity("limits", "cpu") && !is_quantity("data", "cpu"));
    }
}
