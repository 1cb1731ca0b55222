//! Which source is taken, kept and left.

use std::sync::Arc;

use super::*;

/// A source that says what it is told to say.
#[derive(Clone)]
struct Told {
    name: &'static str,
    says: Arc<Mutex<Option<Bundle>>>,
    reads: Arc<Mutex<usize>>,
}

impl Told {
    fn new(name: &'static str, says: Option<&Bundle>) -> Self {
        Self {
            name,
            says: Arc::new(Mutex::new(says.cloned())),
            reads: Arc::default(),
        }
    }

    fn say(&self, says: Option<&Bundle>) {
        *self.says.lock().unwrap() = says.cloned();
    }
}

impl BundleSource for Told {
    async fn current(&self) -> Result<Bundle, Error> {
        *self.reads.lock().unwrap() += 1;
        let says = self.says.lock().unwrap().clone();
        says.ok_or_else(|| Error::NoSource(format!("{} says nothing", self.name)))
    }

    async fn changed(&self) {
        std::future::pending::<()>().await;
    }

    fn describe(&self) -> String {
        self.name.to_owned()
    }
}

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("a.test").unwrap()
}

fn sample(sequence: u64) -> Bundle {
    Bundle {
        sequence: Some(sequence),
        ..crate::model::bundle::sample("a.test")
    }
}

/// A bundle with the keys of both.
fn joined(old: &Bundle, new: &Bundle, sequence: u64) -> Bundle {
    let mut joined = new.clone();
    joined.sequence = Some(sequence);
    joined.x509_authorities.extend(old.x509_authorities.clone());
    joined
}

/// Three sources, and what chooses among them: its patience is over at once.
fn auto(says: [Option<&Bundle>; 3]) -> ([Told; 3], Auto<Told>) {
    let names = ["configMap", "endpoint", "exec"];
    let [a, b, c] = [0, 1, 2].map(|index| Told::new(names[index], says[index]));
    let pace = Pace {
        patience: Duration::ZERO,
        look: Duration::from_millis(5),
    };
    let sources = vec![a.clone(), b.clone()];
    let auto = Auto::at_pace(trust_domain(), sources, c.clone(), pace);
    ([a, b, c], auto)
}

/// Lets it look a few times.
async fn looks(auto: &Auto<Told>) {
    let few = Duration::from_millis(50);
    drop(tokio::time::timeout(few, auto.changed()).await);
}

#[tokio::test]
async fn the_least_privileged_that_works_is_taken_and_the_rest_is_told() {
    let bundle = sample(1);
    let (_, all) = auto([Some(&bundle), Some(&bundle), Some(&bundle)]);
    assert_eq!(all.current().await.unwrap(), bundle);
    assert_eq!(all.describe(), "auto: configMap");

    let ([_, _, exec], two) = auto([None, Some(&bundle), Some(&bundle)]);
    two.current().await.unwrap();
    looks(&two).await;
    assert!(two.describe().starts_with("auto: endpoint; not taken: "));
    assert!(
        two.describe().contains("configMap says nothing"),
        "{}",
        two.describe()
    );
    assert_eq!(
        *exec.reads.lock().unwrap(),
        0,
        "the last resort is not looked at"
    );

    let (_, last) = auto([None, None, Some(&bundle)]);
    last.current().await.unwrap();
    assert!(last.describe().starts_with("auto: exec; "));

    let (_, none) = auto([None, None, None]);
    let error = none.current().await.unwrap_err().to_string();
    for name in ["configMap", "endpoint", "exec"] {
        assert!(error.contains(name), "{error}");
    }
}

#[tokio::test]
async fn another_trust_domains_bundle_or_one_without_roots_is_no_bundle() {
    let (own, other) = (sample(1), crate::model::bundle::sample("b.test"));
    let (_, auto) = auto([Some(&other), Some(&Bundle::empty()), Some(&own)]);
    assert_eq!(auto.current().await.unwrap(), own);
}

#[tokio::test]
async fn a_source_that_fails_is_given_time() {
    let bundle = sample(1);
    let sources = vec![Told::new("configMap", Some(&bundle))];
    let exec = Told::new("exec", Some(&bundle));
    let auto = Auto::new(trust_domain(), sources.clone(), exec);
    auto.current().await.unwrap();
    sources[0].say(None);
    let error = auto.current().await.unwrap_err().to_string();
    assert!(error.contains("configMap says nothing"), "{error}");
    assert_eq!(auto.describe(), "auto: configMap");
    sources[0].say(Some(&bundle));
    auto.current().await.unwrap();
}

#[tokio::test]
async fn no_change_of_source_goes_back() {
    let (old, new) = (sample(7), sample(8));
    let full = joined(&old, &new, 8);
    let ([config_map, endpoint, exec], auto) = auto([Some(&full), None, None]);
    auto.current().await.unwrap();

    // Older, the same counter with a key less, and without a counter.
    config_map.say(None);
    let uncounted = Bundle {
        sequence: None,
        ..full.clone()
    };
    for less in [&old, &new, &uncounted] {
        endpoint.say(Some(less));
        exec.say(Some(less));
        let error = auto.current().await.unwrap_err().to_string();
        let told = ["after sequence 8 was read", "lacks key"];
        assert!(told.iter().any(|it| error.contains(it)), "{error}");
    }
    // The same, and newer with a key less: SPIRE has dropped what ended.
    endpoint.say(Some(&full));
    assert_eq!(auto.current().await.unwrap(), full);
    let pruned = Bundle {
        sequence: Some(9),
        ..new.clone()
    };
    endpoint.say(None);
    exec.say(Some(&pruned));
    assert_eq!(auto.current().await.unwrap(), pruned);
}

#[tokio::test]
async fn a_source_may_start_to_count_anew_but_not_lose_a_key_under_one_count() {
    let (old, new) = (sample(7), sample(7));
    let both = joined(&old, &new, 7);
    let ([config_map, ..], auto) = auto([Some(&both), None, None]);
    auto.current().await.unwrap();
    config_map.say(Some(&new));
    let error = auto.current().await.unwrap_err().to_string();
    assert!(error.contains("lacks key"), "{error}");
    let lost = sample(1);
    config_map.say(Some(&lost));
    assert_eq!(auto.current().await.unwrap(), lost);
}

#[tokio::test]
async fn a_less_privileged_source_is_taken_once_it_says_the_same_and_stays() {
    let bundle = sample(1);
    let ([config_map, endpoint, _], auto) = auto([None, None, Some(&bundle)]);
    auto.current().await.unwrap();
    config_map.say(Some(&sample(0)));
    looks(&auto).await;
    assert!(auto.describe().starts_with("auto: exec"));
    endpoint.say(Some(&bundle));
    looks(&auto).await;
    assert!(auto.describe().starts_with("auto: endpoint"));
    assert_eq!(auto.current().await.unwrap(), bundle);
}

#[tokio::test]
async fn a_source_that_stands_still_is_left() {
    let (old, new) = (sample(7), sample(8));
    let newer = joined(&old, &new, 8);
    let ([config_map, _, _], auto) = auto([Some(&old), Some(&newer), None]);
    auto.current().await.unwrap();
    looks(&auto).await;
    assert_eq!(auto.current().await.unwrap(), newer);
    let told = auto.describe();
    assert!(told.starts_with("auto: endpoint"), "{told}");
    assert!(
        told.contains("configMap stands still at sequence 7"),
        "{told}"
    );
    // It does not come back by saying what it said, but by saying what is.
    looks(&auto).await;
    assert!(auto.describe().starts_with("auto: endpoint"));
    config_map.say(Some(&newer));
    looks(&auto).await;
    assert_eq!(auto.describe(), "auto: configMap");
}
