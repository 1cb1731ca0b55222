//! Somebody undoes what we write, again and again: that is told, and slowed down.
//!
//! Each correction of an object heats it by one, and it cools by a factor of *e* each minute, as
//! Config Sync's detector has it: a few corrections far apart are nothing, a few in a row are a fight.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::model::manifest::ObjectKey;

/// From here on it is a fight.
const HOT: f64 = 3.0;

/// How long the first pause is; it doubles with each further correction.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// How long a pause is at most.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(10);

/// How often each object was corrected lately. Losing it only means to find out anew.
#[derive(Clone, Debug, Default)]
pub struct Fights(BTreeMap<ObjectKey, Heat>);

#[derive(Clone, Copy, Debug)]
struct Heat {
    value: f64,
    at: Timestamp,
    /// How many corrections of a hot object there were in a row.
    rounds: u32,
    corrections: u32,
}

/// A fight that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fight {
    /// How often the object was corrected since it was last at peace.
    pub corrections: u32,
    /// Until when it is left as it is.
    pub paused_until: Timestamp,
}

impl Fights {
    /// Notes that an object was corrected.
    pub fn corrected(&mut self, key: ObjectKey, now: Timestamp) {
        let before = self.0.get(&key).copied();
        let cooled = before.map_or(0.0, |heat| heat.cooled(now));
        let value = cooled + 1.0;
        let fighting = before.is_some_and(|heat| heat.rounds > 0 && now < heat.peace_at());
        let rounds = match before {
            Some(heat) if fighting => heat.rounds.saturating_add(1),
            _ => u32::from(value >= HOT),
        };
        let corrections = match before {
            Some(heat) if fighting || cooled > 0.05 => heat.corrections.saturating_add(1),
            _ => 1,
        };
        let heat = Heat {
            value,
            at: now,
            rounds,
            corrections,
        };
        self.0.insert(key, heat);
    }

    /// Whether somebody fights about an object now.
    pub fn about(&self, key: &ObjectKey, now: Timestamp) -> Option<Fight> {
        let heat = self.0.get(key).filter(|heat| heat.rounds > 0)?;
        let paused_until = heat.at + heat.pause();
        (now < heat.peace_at()).then_some(Fight {
            corrections: heat.corrections,
            paused_until,
        })
    }

    /// Forgets objects that nobody fought about for long.
    pub fn cool(&mut self, now: Timestamp) {
        self.0
            .retain(|_, heat| now < heat.peace_at() || heat.cooled(now) > 0.05);
    }
}

impl Heat {
    fn cooled(self, now: Timestamp) -> f64 {
        let minutes = now.duration_since(self.at).as_secs_f64().max(0.0) / 60.0;
        self.value * (-minutes).exp()
    }

    fn pause(self) -> SignedDuration {
        let doubled = 1_i32 << self.rounds.saturating_sub(1).min(10);
        (FIRST_PAUSE * doubled).min(LONGEST_PAUSE)
    }

    /// Who does not undo a correction within twice the pause has given up.
    fn peace_at(self) -> Timestamp {
        self.at + self.pause() * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ObjectKey {
        ObjectKey {
            group_kind: "K".to_owned(),
            namespace: None,
            name: "x".to_owned(),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn corrections_in_a_row_are_a_fight_and_slow_down() {
        let mut fights = Fights::default();
        for second in [0, 1, 2] {
            assert_eq!(fights.about(&key(), at(second)), None);
            fights.corrected(key(), at(second));
        }
        // Almost three by now.
        fights.corrected(key(), at(3));
        let first = fights.about(&key(), at(3)).unwrap();
        assert_eq!((first.corrections, first.paused_until), (4, at(33)));
        // It goes on: the pause doubles, up to its limit.
        let mut now = 33;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            fights.corrected(key(), at(now));
            let fight = fights.about(&key(), at(now)).unwrap();
            pauses.push(fight.paused_until.as_second() - now);
            now = fight.paused_until.as_second();
        }
        assert_eq!(pauses, [60, 120, 240, 480, 600, 600]);
        // Peace.
        assert_eq!(fights.about(&key(), at(now + 601)), None);
        fights.cool(at(now + 601));
        assert_eq!(fights.0.len(), 0);
    }

    #[test]
    fn corrections_far_apart_are_none() {
        let mut fights = Fights::default();
        for minute in 0..10 {
            fights.corrected(key(), at(minute * 120));
            assert_eq!(fights.about(&key(), at(minute * 120)), None);
        }
    }
}
