//! Who holds the Lease: what was found there and when in, what to write out. Nothing here waits or
//! asks.
//!
//! The rules are client-go's. A candidate takes the Lease of another once it has seen nothing change
//! there for as long as the Lease lasts, by its own clock: what the other's clock says is never
//! compared with anything.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// How a Lease is kept.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long the others wait for a holder that is not heard of.
    pub duration: Duration,
    /// How long a holder writes after the last renewal that it knows of. It must be shorter than
    /// `duration`: who holds the Lease ends before anybody else begins.
    pub renew_deadline: Duration,
    /// How often the Lease is renewed, or looked at.
    pub retry: Duration,
}

impl Default for Timing {
    /// As client-go has it.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Who holds it; empty if nobody does.
    pub(super) holder: String,
    /// How long the others have to wait.
    pub(super) duration: Duration,
    /// How often the holder changed.
    pub(super) transitions: i32,
    /// When the holder took it, by the holder's clock: for people.
    pub(super) acquired: Option<Timestamp>,
    /// When the holder renewed it, by the holder's clock: that it changes is what counts.
    pub(super) renewed: Option<Timestamp>,
}

/// What is to be done about the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is ours, or free: write this.
    Take(Record),
    /// It is this one's.
    Wait(String),
}

/// A candidate's part.
#[derive(Debug)]
pub(super) struct Election {
    name: String,
    timing: Timing,
    /// What was found last, and when it was first found so.
    seen: Option<(Record, Instant)>,
    /// Until when we may write.
    held_until: Option<Instant>,
}

impl Election {
    /// A candidate that has not looked yet. The name must be nobody else's.
    pub(super) fn new(name: String, timing: Timing) -> Self {
        Self {
            name,
            timing,
            seen: None,
            held_until: None,
        }
    }

    /// What to do about what was found. `now` is a moment after the answer came; `clock` is what
    /// people will read in the Lease.
    pub(super) fn turn(&mut self, found: Option<&Record>, now: Instant, clock: Timestamp) -> Turn {
        let mine = Record {
            holder: self.name.clone(),
            duration: self.timing.duration,
            transitions: 0,
            acquired: Some(clock),
            renewed: Some(clock),
        };
        let Some(found) = found else {
            self.seen = None;
            return Turn::Take(mine);
        };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != found) {
            self.seen = Some((found.clone(), now));
        }
        if found.holder == self.name {
            return Turn::Take(Record {
                transitions: found.transitions,
                acquired: found.acquired,
                ..mine
            });
        }
        // Whoever holds it by now, it is not us.
        self.held_until = None;
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        if found.holder.is_empty() || now.duration_since(since) >= found.duration {
            return Turn::Take(Record {
                transitions: found.transitions.saturating_add(1),
                ..mine
            });
        }
        Turn::Wait(found.holder.clone())
    }

    /// The server took what was to be written. `asked` is a moment before it was sent: the others
    /// wait from a later one.
    pub(super) fn taken(&mut self, asked: Instant) {
        self.held_until = Some(asked + self.timing.renew_deadline);
    }

    /// Until when we may write; `None` if we may not.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// What is written when we leave: nobody has to wait for us. `None` if the Lease is not ours.
    pub(super) fn release(&mut self, found: &Record, clock: Timestamp) -> Option<Record> {
        self.held_until = None;
        (found.holder == self.name).then(|| Record {
            holder: String::new(),
            duration: Duration::from_secs(1),
            transitions: found.transitions,
            acquired: found.acquired,
            renewed: Some(clock),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMING: Timing = Timing {
        duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };

    fn election(name: &str) -> Election {
        Election::new(name.to_owned(), TIMING)
    }

    fn clock(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn record(turn: Turn) -> Record {
        match turn {
            Turn::Take(record) => record,
            Turn::Wait(holder) => panic!("{holder} holds it"),
        }
    }

    #[test]
    fn the_first_takes_it_and_the_second_waits_from_when_it_looked() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut a, mut b) = (election("a"), election("b"));
        let taken = record(a.turn(None, at(0), clock(0)));
        assert_eq!((taken.holder.as_str(), taken.transitions), ("a", 0));
        a.taken(at(0));
        assert_eq!(a.held_until(), Some(at(10)));
        // Somebody's clock that is a year off decides nothing.
        let off = Record {
            renewed: Some(clock(31_536_000)),
            ..taken.clone()
        };
        for second in [100, 114] {
            assert_eq!(
                b.turn(Some(&off), at(second), clock(0)),
                Turn::Wait("a".into())
            );
        }
        let over = record(b.turn(Some(&off), at(115), clock(7)));
        assert_eq!((over.holder.as_str(), over.transitions), ("b", 1));
        assert_eq!(over.acquired, Some(clock(7)));
    }

    #[test]
    fn a_renewal_keeps_the_others_waiting_and_a_release_does_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut a, mut b) = (election("a"), election("b"));
        let first = record(a.turn(None, at(0), clock(0)));
        assert_eq!(
            b.turn(Some(&first), at(0), clock(0)),
            Turn::Wait("a".into())
        );
        let renewed = record(a.turn(Some(&first), at(14), clock(14)));
        assert_eq!(renewed.acquired, Some(clock(0)));
        assert_eq!(
            b.turn(Some(&renewed), at(16), clock(0)),
            Turn::Wait("a".into())
        );
        let released = a.release(&renewed, clock(17)).unwrap();
        assert_eq!(a.held_until(), None);
        assert_eq!(
            record(b.turn(Some(&released), at(17), clock(0))).holder,
            "b"
        );
        // What is another's is not released.
        let mut c = election("c");
        assert_eq!(c.release(&renewed, clock(17)), None);
    }

    #[test]
    fn who_finds_another_there_is_out_at_once() {
        let start = Instant::now();
        let mut a = election("a");
        let mine = record(a.turn(None, start, clock(0)));
        a.taken(start);
        let theirs = Record {
            holder: "b".to_owned(),
            ..mine
        };
        assert_eq!(
            a.turn(Some(&theirs), start, clock(0)),
            Turn::Wait("b".into())
        );
        assert_eq!(a.held_until(), None);
    }

    /// A step of one candidate in the simulation.
    #[derive(Clone, Debug)]
    enum Act {
        /// Reads, and keeps what is to be written for later.
        Look,
        /// Sends what was to be written; the server's answer may get lost.
        Write {
            lost: bool,
        },
        Release,
    }

    fn acts() -> impl Strategy<Value = Vec<(usize, u64, Act)>> {
        let act = prop_oneof![
            4 => Just(Act::Look),
            4 => prop::bool::weighted(0.2).prop_map(|lost| Act::Write { lost }),
            1 => Just(Act::Release),
        ];
        // Milliseconds: from at once to about as long as a Lease lasts.
        let pause = prop_oneof![5 => 0_u64..50, 2 => 0_u64..3_000, 2 => 9_000_u64..17_000];
        prop::collection::vec((0_usize..3, pause, act), 1..200)
    }

    proptest! {
        /// Whatever is late or lost, and however clocks are set: two never may write at once.
        #[test]
        fn never_two_at_once(acts in acts()) {
            let start = Instant::now();
            let mut now = start;
            let mut server: (Option<Record>, u64) = (None, 0);
            let mut candidates: Vec<(Election, Option<(Record, u64)>)> =
                ["a", "b", "c"].map(|name| (election(name), None)).into();
            for (step, (index, pause, act)) in (0_i64..).zip(acts) {
                now += Duration::from_millis(pause);
                // Each clock has an hour of its own; that it moves is all that it is for.
                let clock = clock(3600 * i64::try_from(index).unwrap() + step);
                let (election, pending) = &mut candidates[index];
                match act {
                    Act::Look => {
                        let turn = election.turn(server.0.as_ref(), now, clock);
                        *pending = match turn {
                            Turn::Take(record) => Some((record, server.1)),
                            Turn::Wait(_) => None,
                        };
                    }
                    Act::Write { lost } => {
                        // Only on top of what was read: that is what the resourceVersion is for.
                        let fits = |it: &(Record, u64)| it.1 == server.1;
                        if let Some((record, _)) = pending.take().filter(fits) {
                            server = (Some(record), server.1 + 1);
                            if !lost {
                                election.taken(now);
                            }
                        }
                    }
                    Act::Release => {
                        let released = server.0.as_ref().and_then(|it| election.release(it, clock));
                        if let Some(record) = released {
                            server = (Some(record), server.1 + 1);
                        }
                        *pending = None;
                    }
                }
                let holding = candidates.iter().filter(|(election, _)| {
                    election.held_until().is_some_and(|until| until > now)
                });
                let names: Vec<_> = holding.map(|(election, _)| &election.name).collect();
                prop_assert!(names.len() < 2, "{names:?} at once");
            }
        }
    }
}
