//! Webhooks, as anybody sends them who reaches the port.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use trustweave::agent::webhook::signature::{Provider, Refusal, Secrets, Verification};

/// What callers may know. Neither is as long as a block of SHA-256.
const SECRETS: [&str; 2] = ["one secret", "another secret"];

/// Who is heard knows a secret, and who knows one is heard; however the body arrives.
///
/// An input has headers, an empty line, and the body.
pub fn holds(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        let any = text.lines().any(|line| !line.trim().is_empty());
        assert_eq!(Secrets::parse(text).is_ok(), any);
    }
    let end = data.windows(2).position(|two| two == b"\n\n");
    let (lines, body) = end.map_or((data, &[][..]), |end| (&data[..end], &data[end + 2..]));
    let headers: Vec<(String, &[u8])> = lines
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = String::from_utf8_lossy(&line[..colon]).to_lowercase();
            Some((name, line[colon + 1..].trim_ascii()))
        })
        .collect();
    let heard = verdict(&headers, &[body]);
    for cut in [0, 1, body.len() / 2, body.len()] {
        let (first, second) = body.split_at(cut.min(body.len()));
        assert_eq!(verdict(&headers, &[first, second]), heard);
    }
    if let Ok(provider) = heard {
        let name = match provider {
            Provider::GitHub => "x-hub-signature-256",
            Provider::GitLab => "x-gitlab-token",
            Provider::Forgejo => "x-forgejo-signature",
            Provider::Gitea => "x-gitea-signature",
            Provider::Bitbucket => "x-hub-signature",
            Provider::Generic => "x-signature",
        };
        let shown = String::from_utf8_lossy(find(&headers, name).unwrap_or_default()).into_owned();
        let shown = shown.strip_prefix("sha256=").unwrap_or(&shown);
        let known = SECRETS.iter().any(|secret| match provider {
            Provider::GitLab => shown == *secret,
            _ => shown.eq_ignore_ascii_case(&hmac(secret, body)),
        });
        assert!(known, "{provider:?} is heard with {shown}");
    }

    for secret in SECRETS {
        let signature = format!("sha256={}", hmac(secret, body));
        let signed = [("x-signature".to_owned(), signature.as_bytes())];
        assert_eq!(verdict(&signed, &[body]), Ok(Provider::Generic));
        assert_eq!(verdict(&signed, &[body, b" "]), Err(Refusal::Wrong));
    }
}

fn find<'h>(headers: &[(String, &'h [u8])], name: &str) -> Option<&'h [u8]> {
    let found = headers.iter().find(|(it, _)| it == name);
    found.map(|(_, value)| *value)
}

fn verdict(headers: &[(String, &[u8])], body: &[&[u8]]) -> Result<Provider, Refusal> {
    let secrets = Secrets::parse(&SECRETS.join("\n"))?;
    let mut verification = Verification::begin(|name| find(headers, name), &secrets)?;
    for part in body {
        verification.update(part);
    }
    verification.finish()
}

/// HMAC-SHA256 (RFC 2104), written anew: what checks must not share what it checks.
fn hmac(secret: &str, body: &[u8]) -> String {
    let pad = |with: u8| -> Vec<u8> {
        let mut block = [with; 64];
        for (byte, of) in block.iter_mut().zip(secret.bytes()) {
            *byte ^= of;
        }
        block.to_vec()
    };
    let inner = Sha256::digest([pad(0x36), body.to_vec()].concat());
    let outer = Sha256::digest([pad(0x5c), inner.to_vec()].concat());
    outer.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
