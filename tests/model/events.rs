//! What may happen.

use proptest::prelude::*;

use super::keys::{PEERS, ROOTS};

/// How a person changes a peer's `ClusterFederatedTrustDomain`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tamper {
    /// Other roots in its bundle.
    Bundle(u8),
    /// No keys at all.
    Empty,
    /// A bundle that does not parse.
    Invalid,
    /// No bundle.
    Removed,
    /// Another address.
    Address,
    /// The oldest state that a backup has.
    Restored,
    /// The object is gone.
    Deleted,
}

/// Something that happens. Peers and roots are named by their index, sets of roots by a mask.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    // Commits on main.
    Edge(usize, bool),
    Import(usize, bool),
    Export(usize, bool),
    Declare(usize, bool),
    Epoch(usize),
    /// Another endpoint, which the publication on the branch attests, or does not yet.
    Move(usize, bool),
    Revoke(usize, usize, bool),
    Unrevoke(usize, usize, bool),
    /// All revocations of a peer's keys vanish from the files.
    Vanish(usize),
    TopologyUnreadable(bool),
    DistrustUnreadable(bool),
    OverlayUnreadable(bool),
    // Branches of the peers.
    Publish(usize, u8),
    Replay(usize, usize),
    Equivocate(usize, u8),
    Unsigned(usize),
    // Endpoints of the peers.
    Serve(usize, u8),
    Reachable(usize, bool),
    /// The poll that starts now answers with what is served now, this many seconds later.
    SlowPoll(usize, u8),
    // The agent.
    Restart,
    AgentRuns(bool),
    /// The agent is killed after so many writes of its next pass.
    CrashAfter(usize),
    Forget(usize),
    RefuseDelivery(usize, bool),
    RefuseOverlay(bool),
    // SPIRE, and people.
    Tamper(usize, Tamper),
    ControllerRuns(bool),
    SpireRestarts,
    DatastoreLost,
    DeleteRow(usize),
    Legacy(usize, bool),
    Force(usize, bool),
    NewPod,
    Nothing,
}

/// A sequence of events, each with the seconds that pass after it.
pub(crate) fn history() -> impl Strategy<Value = Vec<(Event, u32)>> {
    let wait = prop_oneof![
        4 => Just(0),
        4 => 1..20_u32,
        3 => 20..90_u32,
        1 => 90..400_u32,
    ];
    prop::collection::vec((event(), wait), 1..40)
}

fn event() -> impl Strategy<Value = Event> {
    let peer = || 0..PEERS.len();
    let root = || 0..ROOTS;
    let mask = || 1..(1_u8 << ROOTS);
    let yes = any::<bool>;
    let main = prop_oneof![
        4 => (peer(), yes()).prop_map(|(peer, on)| Event::Edge(peer, on)),
        1 => (peer(), yes()).prop_map(|(peer, on)| Event::Import(peer, on)),
        2 => (peer(), yes()).prop_map(|(peer, on)| Event::Export(peer, on)),
        1 => (peer(), yes()).prop_map(|(peer, on)| Event::Declare(peer, on)),
        1 => peer().prop_map(Event::Epoch),
        1 => (peer(), yes()).prop_map(|(peer, attested)| Event::Move(peer, attested)),
        4 => (peer(), root(), yes()).prop_map(|(peer, root, own)| Event::Revoke(peer, root, own)),
        2 => (peer(), root(), yes()).prop_map(|(peer, root, own)| Event::Unrevoke(peer, root, own)),
        1 => peer().prop_map(Event::Vanish),
        1 => yes().prop_map(Event::TopologyUnreadable),
        1 => yes().prop_map(Event::DistrustUnreadable),
        1 => yes().prop_map(Event::OverlayUnreadable),
    ];
    let branches = prop_oneof![
        5 => (peer(), mask()).prop_map(|(peer, mask)| Event::Publish(peer, mask)),
        1 => (peer(), 0..4_usize).prop_map(|(peer, back)| Event::Replay(peer, back)),
        1 => (peer(), mask()).prop_map(|(peer, mask)| Event::Equivocate(peer, mask)),
        1 => peer().prop_map(Event::Unsigned),
    ];
    let endpoints = prop_oneof![
        2 => (peer(), mask()).prop_map(|(peer, mask)| Event::Serve(peer, mask)),
        1 => (peer(), yes()).prop_map(|(peer, on)| Event::Reachable(peer, on)),
        2 => (peer(), 1..=60_u8).prop_map(|(peer, late)| Event::SlowPoll(peer, late)),
    ];
    let agent = prop_oneof![
        1 => Just(Event::Restart),
        1 => yes().prop_map(Event::AgentRuns),
        2 => (0..6_usize).prop_map(Event::CrashAfter),
        2 => peer().prop_map(Event::Forget),
        1 => (peer(), yes()).prop_map(|(peer, on)| Event::RefuseDelivery(peer, on)),
        1 => yes().prop_map(Event::RefuseOverlay),
    ];
    let tamper = prop_oneof![
        mask().prop_map(Tamper::Bundle),
        Just(Tamper::Empty),
        Just(Tamper::Invalid),
        Just(Tamper::Removed),
        Just(Tamper::Address),
        Just(Tamper::Restored),
        Just(Tamper::Deleted),
    ];
    let cluster = prop_oneof![
        4 => (peer(), tamper).prop_map(|(peer, how)| Event::Tamper(peer, how)),
        2 => yes().prop_map(Event::ControllerRuns),
        1 => Just(Event::SpireRestarts),
        1 => Just(Event::DatastoreLost),
        1 => peer().prop_map(Event::DeleteRow),
        1 => (peer(), yes()).prop_map(|(peer, on)| Event::Legacy(peer, on)),
        1 => (peer(), yes()).prop_map(|(peer, on)| Event::Force(peer, on)),
        2 => Just(Event::NewPod),
        1 => Just(Event::Nothing),
    ];
    prop_oneof![5 => main, 3 => branches, 2 => endpoints, 2 => agent, 3 => cluster]
}
