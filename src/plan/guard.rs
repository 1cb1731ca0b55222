//! Deletions that nobody may want: too many at once, or of what holds other objects. They wait until
//! somebody says that exactly these are meant.

use std::{collections::BTreeSet, fmt};

use crate::model::{
    bundle::Digest,
    manifest::{Gvk, ObjectKey, ObjectRef},
    repository::{RepoPath, Tree, overlay_directory},
    trust_domain::ClusterName,
};

/// So few deletions at once never wait, whatever share of the overlay they are.
const FEW: usize = 3;

/// The file in a cluster's overlay in which people acknowledge deletions, one digest a line.
pub const ACKNOWLEDGE_FILE: &str = "acknowledge.txt";

/// Whether with an object of this kind others go that may not be ours.
pub fn holds_others(gvk: &Gvk) -> bool {
    matches!(
        (gvk.group.as_str(), gvk.kind.as_str()),
        ("", "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition")
    )
}

/// The name of a set of deletions: SHA-256 of the objects' identities in order, one a line. It is the
/// same for the same objects in the same cluster, so it can be told before anything is merged.
pub fn digest<'a>(deletions: impl IntoIterator<Item = &'a ObjectRef>) -> Digest {
    let keys: BTreeSet<ObjectKey> = deletions.into_iter().map(ObjectRef::key).collect();
    let lines = keys.iter().map(|key| format!("{}\n", line(key)));
    Digest::of(lines.collect::<String>().as_bytes())
}

/// What an approved deletion is remembered by until it is done: the first digits of the digest of
/// the object's identity, as there may be thousands.
pub fn mark(key: &ObjectKey) -> String {
    Digest::of(line(key).as_bytes()).short().to_owned()
}

fn line(key: &ObjectKey) -> String {
    let namespace = key.namespace.as_deref().unwrap_or_default();
    format!("{} {namespace}/{}", key.group_kind, key.name)
}

/// What people have acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    /// The digests, or their first digits (12 at least), of sets of deletions.
    pub digests: BTreeSet<String>,
    /// The marks of deletions that were approved before, and are not done yet.
    pub under_way: BTreeSet<String>,
}

impl Acknowledged {
    fn has(&self, digest: &Digest) -> bool {
        let enough = |given: &&String| given.len() >= digest.short().len();
        let mut given = self.digests.iter().filter(enough);
        given.any(|given| digest.as_str().starts_with(given.as_str()))
    }
}

/// The file in which people acknowledge what a cluster's agent deletes.
pub fn acknowledge_path(cluster: &ClusterName) -> RepoPath {
    let directory = overlay_directory(cluster);
    // A name without a separator joins to any directory.
    directory.join(ACKNOWLEDGE_FILE).unwrap_or(directory)
}

/// What a cluster's file acknowledges: the first word of each line that is no comment.
pub fn acknowledged_in(tree: &Tree, cluster: &ClusterName) -> BTreeSet<String> {
    let path = acknowledge_path(cluster);
    if tree.get(&path).is_none() {
        return BTreeSet::new();
    }
    let text = tree.text(&path).unwrap_or_default();
    let words = text.lines().filter_map(|line| {
        let word = line.split_whitespace().next()?;
        (!word.starts_with('#')).then(|| word.to_ascii_lowercase())
    });
    words.collect()
}

/// Deletions that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The name of the set.
    pub digest: Digest,
    /// How many they are.
    pub deletions: usize,
    /// Of how many objects.
    pub members: usize,
    /// Those with which others would go.
    pub holding_others: Vec<ObjectRef>,
    /// The largest share, in percent, that does not wait.
    pub percent: u8,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            deletions,
            members,
            percent,
            ..
        } = self;
        if let [first, rest @ ..] = self.holding_others.as_slice() {
            write!(
                f,
                "{deletions} deletion(s) of {members} object(s), among them {first}"
            )?;
            if !rest.is_empty() {
                write!(f, " and {} more like it", rest.len())?;
            }
            f.write_str(", with everything in it")
        } else {
            write!(
                f,
                "{deletions} deletions of {members} objects, more than {percent} %"
            )
        }
    }
}

/// Whether deletions wait: `None` if they may be made. `members` is how many objects of ours there
/// are, before anything is deleted.
pub fn examine(
    deletions: &[ObjectRef],
    members: usize,
    percent: u8,
    acknowledged: &Acknowledged,
) -> Option<Held> {
    let pending = deletions.iter();
    let pending: Vec<&ObjectRef> = pending
        .filter(|reference| !acknowledged.under_way.contains(&mark(&reference.key())))
        .collect();
    let holding_others: Vec<ObjectRef> = pending
        .iter()
        .filter(|reference| holds_others(&reference.gvk))
        .map(|reference| (*reference).clone())
        .collect();
    let many = pending.len() > FEW && pending.len() * 100 > members * usize::from(percent);
    if !many && holding_others.is_empty() {
        return None;
    }
    let digest = digest(pending.iter().copied());
    (!acknowledged.has(&digest)).then_some(Held {
        digest,
        deletions: pending.len(),
        members,
        holding_others,
        percent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::repository::Entry;

    fn reference(kind: &str, name: &str) -> ObjectRef {
        ObjectRef {
            gvk: Gvk::new("v1", kind),
            namespace: (kind != "Namespace").then(|| "n".to_owned()),
            name: name.to_owned(),
        }
    }

    fn services(number: usize) -> Vec<ObjectRef> {
        let names = (0..number).map(|it| format!("s{it}"));
        names.map(|name| reference("Service", &name)).collect()
    }

    #[test]
    fn many_or_a_namespace_wait_until_exactly_they_are_acknowledged() {
        let mut acknowledged = Acknowledged::default();
        let few = services(3);
        assert_eq!(examine(&few, 3, 30, &acknowledged), None);
        assert_eq!(examine(&services(4), 20, 30, &acknowledged), None);
        let four = services(4);
        let held = examine(&four, 10, 30, &acknowledged).unwrap();
        assert_eq!(
            held.to_string(),
            "4 deletions of 10 objects, more than 30 %"
        );
        acknowledged.digests.insert(held.digest.short().to_owned());
        assert_eq!(examine(&four, 10, 30, &acknowledged), None);
        // Others are not meant, and too few digits mean nothing.
        assert!(examine(&services(5), 10, 30, &acknowledged).is_some());
        acknowledged.digests = BTreeSet::from([held.digest.as_str()[..4].to_owned()]);
        assert!(examine(&four, 10, 30, &acknowledged).is_some());

        let namespace = [reference("Namespace", "shop")];
        let held = examine(&namespace, 100, 30, &Acknowledged::default()).unwrap();
        assert_eq!(
            held.to_string(),
            "1 deletion(s) of 100 object(s), among them Namespace shop, with everything in it"
        );
    }

    #[test]
    fn what_was_approved_goes_on_though_part_of_it_is_done() {
        let all = services(8);
        let acknowledged = Acknowledged {
            under_way: all.iter().map(|it| mark(&it.key())).collect(),
            ..Acknowledged::default()
        };
        assert_eq!(examine(&all[4..], 8, 30, &acknowledged), None);
        let mut more = all[6..].to_vec();
        more.push(reference("Namespace", "shop"));
        let held = examine(&more, 8, 30, &acknowledged).unwrap();
        assert_eq!(held.deletions, 1);
    }

    #[test]
    fn the_file_has_one_digest_a_line() {
        let cluster = ClusterName::parse("cluster-1").unwrap();
        let path = acknowledge_path(&cluster);
        assert_eq!(path.as_str(), "clusters/cluster-1/acknowledge.txt");
        let mut tree = Tree::default();
        assert_eq!(acknowledged_in(&tree, &cluster), BTreeSet::new());
        let text = "# shop was closed\nABCDEF123456  the shop\n\n";
        tree.insert(path, Entry::File(text.as_bytes().to_vec().into()));
        let expected = BTreeSet::from(["abcdef123456".to_owned()]);
        assert_eq!(acknowledged_in(&tree, &cluster), expected);
    }
}
