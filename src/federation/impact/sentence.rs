//! Sentences that keep our own words apart from what others wrote.
//!
//! A name may come from a pull request of a stranger. Whoever shows a sentence where marks have a
//! meaning, as in Markdown, has to know which parts are names; that must not be guessed afterwards.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::model::{
    distrust::KeyId,
    manifest::ObjectRef,
    repository::RepoPath,
    trust_domain::{ClusterName, TrustDomain},
};

/// A part of a [`Sentence`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Our own words: they come from the program.
    Words(&'static str),
    /// A number or a time.
    Value(String),
    /// What somebody wrote in a repository or a cluster.
    Name(String),
}

/// A sentence without a full stop. Its text form is for terminals, logs and programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sentence(Vec<Piece>);

impl Sentence {
    /// Its parts, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, piece: Piece) {
        self.0.push(piece);
    }

    /// Names, as people list them: `a, b and c`.
    pub(super) fn names<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> Self {
        let names = items.into_iter().map(|item| named(item).into_sentence());
        Self::join(names, " and ")
    }

    /// Sentences after each other, the last one joined by `last`.
    pub(super) fn join(items: impl IntoIterator<Item = Self>, last: &'static str) -> Self {
        let items: Vec<_> = items.into_iter().collect();
        let count = items.len();
        let mut all = Self::default();
        for (index, item) in items.into_iter().enumerate() {
            match index {
                0 => {}
                _ if index + 1 == count => all.push(Piece::Words(last)),
                _ => all.push(Piece::Words(", ")),
            }
            all.0.extend(item.0);
        }
        all
    }
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Words(words) => f.write_str(words),
            Piece::Value(text) | Piece::Name(text) => f.write_str(text),
        })
    }
}

impl Serialize for Sentence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What can be part of a sentence.
pub(super) trait Say {
    /// Adds it at the end.
    fn say(self, sentence: &mut Sentence);

    /// As a sentence of its own.
    fn into_sentence(self) -> Sentence
    where
        Self: Sized,
    {
        let mut sentence = Sentence::default();
        self.say(&mut sentence);
        sentence
    }
}

/// A name of any type.
pub(super) struct Named(String);

pub(super) fn named(name: impl fmt::Display) -> Named {
    Named(name.to_string())
}

impl Say for Named {
    fn say(self, sentence: &mut Sentence) {
        sentence.push(Piece::Name(self.0));
    }
}

impl Say for &'static str {
    fn say(self, sentence: &mut Sentence) {
        sentence.push(Piece::Words(self));
    }
}

impl Say for Sentence {
    fn say(self, sentence: &mut Sentence) {
        sentence.0.extend(self.0);
    }
}

impl Say for usize {
    fn say(self, sentence: &mut Sentence) {
        sentence.push(Piece::Value(self.to_string()));
    }
}

impl Say for u64 {
    fn say(self, sentence: &mut Sentence) {
        sentence.push(Piece::Value(self.to_string()));
    }
}

impl Say for Timestamp {
    fn say(self, sentence: &mut Sentence) {
        sentence.push(Piece::Value(self.to_string()));
    }
}

impl Say for &KeyId {
    fn say(self, sentence: &mut Sentence) {
        let (kind, name) = match self {
            KeyId::X509(digest) => ("X.509 key ", digest.short()),
            KeyId::Jwt(jwt) => ("JWT key ", jwt.kid.as_str()),
        };
        sentence.push(Piece::Words(kind));
        sentence.push(Piece::Name(name.to_owned()));
    }
}

/// Types whose text form is a name.
macro_rules! names {
    ($($name:ty),*) => {
        $(impl Say for &$name {
            fn say(self, sentence: &mut Sentence) {
                sentence.push(Piece::Name(self.to_string()));
            }
        })*
    };
}

names!(TrustDomain, ClusterName, ObjectRef, RepoPath);

/// Builds a [`Sentence`] of words, names and numbers.
macro_rules! sentence {
    ($($part:expr),* $(,)?) => {{
        let mut sentence = $crate::federation::impact::sentence::Sentence::default();
        $($crate::federation::impact::sentence::Say::say($part, &mut sentence);)*
        sentence
    }};
}

pub(super) use sentence;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_apart_and_listed() {
        let name = TrustDomain::parse("a.test").unwrap();
        let told = sentence!(
            &name,
            " holds ",
            2_usize,
            " keys: ",
            Sentence::names(["x", "y", "z"])
        );
        assert_eq!(told.to_string(), "a.test holds 2 keys: x, y and z");
        let names = told
            .pieces()
            .iter()
            .filter(|it| matches!(it, Piece::Name(_)));
        assert_eq!(names.count(), 4);
        assert!(Sentence::names([""; 0]).is_empty());
    }
}
