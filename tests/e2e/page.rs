//! The status page, in a real browser.

use std::{fs, net::SocketAddr, path::Path};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use trustweave_testbed::{
    chromium::Chromium,
    federation::{Federation, trust_domain},
};

use super::{ONE, TWO, plan, progress};

/// A cluster whose agent does not run: its peers have nothing of it.
const SILENT: &str = "cluster-3";

/// A commit's subject that would be a picture if the page took it for markup.
const MARKUP: &str = "Say <img src=x onerror=document.title='taken'> to everybody";

/// The first line of an answer.
async fn asked(address: SocketAddr, request: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Shows the documentation what the page looks like, if that is wanted; a picture it is in any case.
async fn screenshot(browser: &mut Chromium, name: &str) {
    let unfocused = "document.activeElement.blur()";
    browser.evaluate(unfocused).await.unwrap();
    let picture = browser.screenshot().await.unwrap();
    assert!(picture.starts_with(b"\x89PNG"), "{name}");
    if std::env::var_os("TRUSTWEAVE_WRITE_DOCS").is_some() {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
        fs::create_dir_all(&images).unwrap();
        fs::write(images.join(format!("{name}.png")), picture).unwrap();
    }
}

/// Every text's contrast with what is behind it, by WCAG 2.2, section 1.4.3; the texts below 4.5.
const FAINT: &str = r#"(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => [r, g, b].map((it) => it / 255)
    .map((it) => it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4)
    .reduce((sum, it, index) => sum + it * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (node) => {
    for (let it = node; it; it = it.parentElement) {
      const colour = rgb(getComputedStyle(it).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((it) => it.nodeType === 3 && it.data.trim());
    if (!own || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const colour = rgb(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [light, dark] = [luminance(colour), luminance(behind(node))].sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) faint.push(`${node.textContent}: ${contrast.toFixed(2)}`);
  }
  return faint;
})()"#;

/// Whether an element's text has another in it.
fn says(id: &str, text: &str) -> String {
    format!(
        "document.getElementById('{id}').textContent.includes({})",
        json!(text)
    )
}

async fn looks(browser: &mut Chromium) {
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await.unwrap();
        for (width, height) in [(1280, 900), (360, 740)] {
            browser.resize(width, height).await.unwrap();
            let faint = browser.evaluate(FAINT).await.unwrap();
            assert_eq!(faint, json!([]), "{scheme}, {width} pixels wide");
            let overflow = "document.documentElement.scrollWidth - window.innerWidth";
            let overflow = browser.evaluate(overflow).await.unwrap();
            assert!(overflow.as_i64().unwrap() <= 0, "{width}: {overflow}");
            // What is read aloud does not depend on how it is laid out.
            let read = browser.accessible().await.unwrap();
            let has = |role: &str, name: &str| {
                let found = read.iter().any(|(r, n)| r == role && n.contains(name));
                assert!(found, "{role} {name} of {width} pixels: {read:?}");
            };
            has("heading", "Peers");
            has("status", "");
            has("table", "");
            has("rowheader", &trust_domain(ONE));
            has("image", &format!("{}: Federated", trust_domain(ONE)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_shows_who_is_trusted_and_stays_true() {
    let plan = plan().with_clusters(3);
    let mut federation = Federation::prepare(plan, &progress).await.unwrap();
    for name in [ONE, TWO] {
        federation.start_agent(name).unwrap();
    }
    let address = federation.page(TWO).unwrap();
    federation
        .peer_until(TWO, ONE, "the peer to be Federated", |status| {
            status["phase"] == "Federated"
        })
        .await
        .unwrap();

    let mut browser = Chromium::start(&federation.testbed).await.unwrap();
    browser.resize(1280, 900).await.unwrap();
    browser.prefer("light").await.unwrap();
    browser.open(&format!("http://{address}/")).await.unwrap();
    let summary = says("summary", "1 of 2 peers are federated");
    browser
        .until("the page to tell the peers", &summary)
        .await
        .unwrap();
    for (id, text) in [
        ("cluster", TWO),
        ("graph", &trust_domain(ONE)),
        ("rows", &trust_domain(SILENT)),
        ("rows", "Federated"),
        ("rows", "Pending"),
        ("rows", "ClusterSPIFFEID"),
        ("commits", "Declare this machine"),
    ] {
        let expression = says(id, text);
        let what = format!("{id} to tell {text}");
        browser.until(&what, &expression).await.unwrap();
    }

    // Everything is the agent's own, and its policy forbids nothing that it does.
    let loaded = "performance.getEntriesByType('resource').map((it) => it.name)";
    let loaded = browser.evaluate(loaded).await.unwrap();
    let loaded: Vec<&str> = loaded
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it.as_str())
        .collect();
    let own = format!("http://{address}/");
    assert!(
        loaded.len() >= 3 && loaded.iter().all(|it| it.starts_with(&own)),
        "{loaded:?}"
    );

    // By keys alone: the first one leads past the picture.
    browser.press("Tab").await.unwrap();
    let focus = "document.activeElement.textContent";
    assert_eq!(browser.evaluate(focus).await.unwrap(), "Skip to the peers");
    browser.press("Enter").await.unwrap();
    let arrived = "location.hash === '#peers'";
    browser
        .until("the skip link to lead to the peers", arrived)
        .await
        .unwrap();

    looks(&mut browser).await;
    screenshot(&mut browser, "status-page-narrow-dark").await;
    browser.prefer("light").await.unwrap();
    screenshot(&mut browser, "status-page-narrow").await;
    browser.resize(1280, 900).await.unwrap();
    screenshot(&mut browser, "status-page-wide").await;

    // What changes is shown without a reload, and texts are texts.
    let git = &federation.testbed.git;
    git.commit("main", &[("README.md", "Hello\n")], MARKUP)
        .await
        .unwrap();
    let told = says("commits", MARKUP);
    browser.until("the commit to be told", &told).await.unwrap();
    let pictures = "document.querySelectorAll('img').length";
    assert_eq!(browser.evaluate(pictures).await.unwrap(), 0);
    let title = browser.evaluate("document.title").await.unwrap();
    assert!(title.as_str().unwrap().contains(TWO), "{title}");
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // Nothing but reading, and only under names that no other site has (DNS rebinding).
    for (request, host, expected) in [
        ("GET /status.json", "localhost:1", "200"),
        ("GET /status.json", "attacker.example", "421"),
        ("GET /", "attacker.example", "421"),
        ("POST /status.json", "localhost", "405"),
        ("GET /metrics", "localhost", "404"),
    ] {
        let answer = asked(address, request, host).await;
        assert!(answer.contains(expected), "{request} of {host}: {answer}");
    }

    // Who does not answer is not taken for well: what stood last stays, and is marked.
    federation.agent(TWO).unwrap().kill().unwrap();
    let gone = says("summary", "does not answer");
    browser
        .until("the page to miss the agent", &gone)
        .await
        .unwrap();
    let kept = says("rows", &trust_domain(ONE));
    assert_eq!(browser.evaluate(&kept).await.unwrap(), true);
}
