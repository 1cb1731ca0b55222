//! The signing key: from a file, or from a Secret that the agent makes itself when there is none.
//!
//! **Invariant:** a key that is there is never replaced. What can't be used is an error: a new key
//! would be one that no declaration names.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt;

use super::config::{Config, Signing};
use crate::{
    cluster::{
        KubeCluster,
        secret::{Creation, KubeSecretKey, SecretKey, SecretValue},
    },
    git::SigningKey,
};

/// How long until a Secret that could not be read is read again.
const RETRY: Duration = Duration::from_secs(10);

/// The key, and where it is looked at again.
#[derive(Default)]
pub(super) struct Signer {
    pub(super) key: Option<SigningKey>,
    /// The Secret that holds it, if it is one.
    pub(super) secret: Option<KubeSecretKey>,
}

/// The configured key.
pub(super) async fn load(config: &Config, cluster: &KubeCluster) -> anyhow::Result<Signer> {
    match &config.signing {
        None => Ok(Signer::default()),
        Some(Signing {
            secret: Some(secret),
            ..
        }) => {
            let namespace = secret.namespace.as_deref();
            let secret = cluster.secret_key(namespace, &secret.name, &secret.key);
            let comment = format!("trustweave@{}", config.cluster);
            let key = of_secret(&secret, &secret.place(), &comment)
                .await
                .with_context(|| format!("the signing key in {}", secret.place()))?;
            Ok(Signer {
                key: Some(key),
                secret: Some(secret),
            })
        }
        Some(Signing { key_file, .. }) => {
            let path = key_file.as_deref().context("`signing` names no key")?;
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read the signing key in `{}`", path.display()))?;
            Ok(Signer {
                key: Some(SigningKey::from_openssh(&text)?),
                secret: None,
            })
        }
    }
}

/// The key in a Secret; a new one, in a new Secret, if there is none.
async fn of_secret(
    secret: &impl SecretKey,
    place: &str,
    comment: &str,
) -> anyhow::Result<SigningKey> {
    if let Some(key) = standing(secret).await? {
        return Ok(key);
    }
    let key = SigningKey::generate(comment)?;
    let made = secret
        .create(key.to_openssh()?.as_bytes(), &key.public_key())
        .await;
    match made? {
        Creation::Made => {
            tracing::info!(
                place,
                public_key = key.public_key(),
                "made a signing key: its public half belongs into `signers` of the declaration"
            );
            Ok(key)
        }
        // Somebody was faster: theirs is the key.
        Creation::AlreadyThere => standing(secret)
            .await?
            .context("it was there and is gone again"),
    }
}

/// The key in a Secret, if there is the Secret.
async fn standing(secret: &impl SecretKey) -> anyhow::Result<Option<SigningKey>> {
    match secret.read().await? {
        SecretValue::NoSecret => Ok(None),
        SecretValue::NoKey => {
            bail!(
                "the Secret is there without this key: add it, or delete the Secret to have a new one made"
            )
        }
        SecretValue::Bytes(bytes) => {
            let text = std::str::from_utf8(&bytes).ok().context("it is not text")?;
            Ok(Some(SigningKey::from_openssh(text)?))
        }
    }
}

/// Completes when the Secret holds another usable key than `known`; what is not usable is logged
/// once, and the former key stays in force. Without a Secret it never completes.
pub(super) async fn changed(secret: Option<KubeSecretKey>, known: Option<SigningKey>) {
    let Some(secret) = secret else {
        return std::future::pending().await;
    };
    let known = known.map(|key| key.public_key());
    let mut changes = secret.changes();
    let mut told = None;
    let mut failed = false;
    loop {
        tokio::select! {
            // A watch never ends by itself.
            Some(()) = changes.next() => {}
            // What could not be read is not announced a second time.
            () = tokio::time::sleep(RETRY), if failed => {}
        }
        let found = standing(&secret).await;
        failed = found.is_err();
        let unusable = match found {
            Ok(Some(key)) if Some(key.public_key()) != known => return,
            Ok(Some(_)) => None,
            Ok(None) => Some("the Secret is gone; the next start makes another key".to_owned()),
            Err(error) => Some(format!("{error:#}")),
        };
        if unusable != told {
            if let Some(error) = &unusable {
                let place = secret.place();
                tracing::warn!(
                    place,
                    error,
                    "the signing key can't be read; the former stays in force"
                );
            }
            told = unusable;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use zeroize::Zeroizing;

    use super::*;
    use crate::cluster::Error;

    /// A Secret in memory.
    struct Memory {
        value: Mutex<SecretValue>,
        /// What another agent puts there just before this one creates.
        rival: Option<SecretValue>,
        made: Mutex<usize>,
    }

    impl SecretKey for Memory {
        async fn read(&self) -> Result<SecretValue, Error> {
            Ok(self.value.lock().unwrap().clone())
        }

        async fn create(&self, value: &[u8], _: &str) -> Result<Creation, Error> {
            let mut held = self.value.lock().unwrap();
            if let Some(rival) = &self.rival {
                *held = rival.clone();
            }
            if *held != SecretValue::NoSecret {
                return Ok(Creation::AlreadyThere);
            }
            *held = bytes(value);
            *self.made.lock().unwrap() += 1;
            Ok(Creation::Made)
        }
    }

    fn bytes(value: &[u8]) -> SecretValue {
        SecretValue::Bytes(Zeroizing::new(value.to_vec()))
    }

    fn memory(value: SecretValue, rival: Option<SecretValue>) -> Memory {
        Memory {
            value: Mutex::new(value),
            rival,
            made: Mutex::default(),
        }
    }

    async fn key(secret: &Memory) -> Result<String, String> {
        let key = of_secret(secret, "here", "trustweave@a").await;
        key.map(|key| key.public_key())
            .map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn a_key_is_made_once() {
        let secret = memory(SecretValue::NoSecret, None);
        let first = key(&secret).await.unwrap();
        assert!(first.starts_with("ssh-ed25519 "), "{first}");
        assert!(first.ends_with(" trustweave@a"), "{first}");
        assert_eq!(key(&secret).await.unwrap(), first);
        assert_eq!(*secret.made.lock().unwrap(), 1);
    }

    #[tokio::test]
    async fn the_key_of_whoever_was_faster_is_taken() {
        let other = SigningKey::generate("other").unwrap();
        let rival = bytes(other.to_openssh().unwrap().as_bytes());
        let secret = memory(SecretValue::NoSecret, Some(rival));
        assert_eq!(key(&secret).await.unwrap(), other.public_key());
    }

    #[tokio::test]
    async fn what_can_not_be_used_is_never_replaced_nor_quoted() {
        for (value, why) in [
            (SecretValue::NoKey, "without this key"),
            (bytes(b"\xff"), "not text"),
            (bytes(b"-----BEGIN hush"), "not a private key"),
        ] {
            for rival in [None, Some(value.clone())] {
                let before = if rival.is_some() {
                    SecretValue::NoSecret
                } else {
                    value.clone()
                };
                let secret = memory(before, rival);
                let error = key(&secret).await.unwrap_err();
                assert!(error.contains(why), "{error}");
                assert!(!error.contains("hush"), "{error}");
                assert!(*secret.value.lock().unwrap() == value);
                assert_eq!(*secret.made.lock().unwrap(), 0);
            }
        }
    }
}
