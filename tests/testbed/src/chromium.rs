//! A real browser without a screen: Chromium, told what to do by the `DevTools` protocol.
//!
//! The protocol: <https://chromedevtools.github.io/devtools-protocol/>. Messages go through two named pipes, each
//! ended by a zero byte (`--remote-debugging-pipe`), so no port is open that somebody else could use.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe;

use crate::Testbed;
use crate::process::{Process, run, wait_until};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// The browser with one page; it ends when this is dropped.
pub struct Chromium {
    commands: pipe::Sender,
    answers: BufReader<pipe::Receiver>,
    session: Option<String>,
    number: u64,
    complaints: Vec<String>,
    _process: Process,
}

impl Chromium {
    /// Starts the `chromium` of the search path, with nothing remembered of earlier ones.
    pub async fn start(testbed: &Testbed) -> anyhow::Result<Self> {
        let directory = testbed.directory().join("chromium");
        std::fs::create_dir_all(&directory).context("make the browser's directory")?;
        let [input, output] = ["input", "output"].map(|name| directory.join(name));
        let mut mkfifo = tokio::process::Command::new("mkfifo");
        mkfifo.args([&input, &output]);
        run(&testbed.reaper, mkfifo).await?;
        // Read and write, so that no end has to wait for the other.
        let mut both = pipe::OpenOptions::new();
        both.read_write(true);
        let commands = both.open_sender(&input).context("open a pipe")?;
        let answers = both.open_receiver(&output).context("open a pipe")?;
        // As root there is no sandbox; the only page is ours.
        let script = r#"exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
            --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars \
            --user-data-dir="$1/profile" --remote-debugging-pipe 3<"$1/input" 4>"$1/output""#;
        let log = directory.join("log");
        let shell = ["-c", script, "chromium"].map(Into::into).into_iter();
        let arguments = shell.chain([directory.clone().into_os_string()]);
        let home = [("HOME".into(), directory.clone().into_os_string())];
        let process = testbed.spawn("chromium", Path::new("/bin/sh"), arguments, home, &log)?;
        let mut browser = Self {
            commands,
            answers: BufReader::new(answers),
            session: None,
            number: 0,
            complaints: Vec::new(),
            _process: process,
        };
        let page = browser
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await
            .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        let attached = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attached).await?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(browser)
    }

    /// Calls a method of the protocol.
    pub async fn call(&mut self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut message = message.to_string().into_bytes();
        message.push(0);
        self.commands.write_all(&message).await?;
        tokio::time::timeout(PATIENCE, self.answer())
            .await
            .with_context(|| format!("Chromium does not answer {method}"))?
            .with_context(|| format!("Chromium refuses {method}"))
    }

    async fn answer(&mut self) -> anyhow::Result<Value> {
        loop {
            let mut message = Vec::new();
            self.answers.read_until(0, &mut message).await?;
            anyhow::ensure!(message.pop() == Some(0), "it ended");
            let mut message: Value = serde_json::from_slice(&message)?;
            if message["id"] == self.number {
                if let Some(error) = message.get("error") {
                    bail!("{error}");
                }
                return Ok(message["result"].take());
            }
            self.note(&message);
        }
    }

    /// Keeps what the page did wrong.
    fn note(&mut self, event: &Value) {
        let told = &event["params"];
        let wrong = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => &told["exceptionDetails"],
            Some("Log.entryAdded") if told["entry"]["level"] == "error" => &told["entry"],
            Some("Runtime.consoleAPICalled") if told["type"] == "error" => &told["args"],
            _ => return,
        };
        self.complaints.push(wrong.to_string());
    }

    /// What went wrong in the page since the last call: exceptions, errors, what its policy forbids.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Opens a URL.
    pub async fn open(&mut self, url: &str) -> anyhow::Result<()> {
        let answer = self.call("Page.navigate", json!({"url": url})).await?;
        anyhow::ensure!(answer["errorText"].is_null(), "open {url}: {answer}");
        Ok(())
    }

    /// The window's inner size, in CSS pixels.
    pub async fn resize(&mut self, width: u32, height: u32) -> anyhow::Result<()> {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size)
            .await?;
        Ok(())
    }

    /// What the user prefers: `light` or `dark`.
    pub async fn prefer(&mut self, scheme: &str) -> anyhow::Result<()> {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        let media = json!({"features": [feature]});
        self.call("Emulation.setEmulatedMedia", media).await?;
        Ok(())
    }

    /// Presses a key, such as `Tab` or `Enter`.
    pub async fn press(&mut self, key: &str) -> anyhow::Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            _ => bail!("no code is known of {key}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if key == "Enter" && kind == "keyDown" {
                event["text"] = json!("\r");
            }
            self.call("Input.dispatchKeyEvent", event).await?;
        }
        Ok(())
    }

    /// The value of an expression in the page.
    pub async fn evaluate(&mut self, expression: &str) -> anyhow::Result<Value> {
        let request = json!({"expression": expression, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", request).await?;
        let exception = &answer["exceptionDetails"];
        anyhow::ensure!(exception.is_null(), "{expression}: {exception}");
        Ok(answer["result"]["value"].take())
    }

    /// Waits until an expression is true in the page; at the deadline the error has the page's text.
    pub async fn until(&mut self, what: &str, expression: &str) -> anyhow::Result<()> {
        let browser = tokio::sync::Mutex::new(self);
        wait_until(what, PATIENCE, async || {
            let mut browser = browser.lock().await;
            if browser.evaluate(expression).await? == true {
                return Ok(Some(()));
            }
            let text = browser.evaluate("document.body.innerText").await?;
            bail!("the page says: {text}")
        })
        .await
    }

    /// What a screen reader is told: role and name of everything that is not hidden from it.
    pub async fn accessible(&mut self) -> anyhow::Result<Vec<(String, String)>> {
        let tree = self.call("Accessibility.getFullAXTree", json!({})).await?;
        let nodes = tree["nodes"].as_array().into_iter().flatten();
        let nodes = nodes.filter(|node| node["ignored"] == false);
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        Ok(nodes
            .map(|node| (text(&node["role"]), text(&node["name"])))
            .collect())
    }

    /// The whole page as a PNG.
    pub async fn screenshot(&mut self) -> anyhow::Result<Vec<u8>> {
        let size = self.call("Page.getLayoutMetrics", json!({})).await?;
        let size = &size["cssContentSize"];
        let clip = json!({
            "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1,
        });
        let request = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let answer = self.call("Page.captureScreenshot", request).await?;
        let data = answer["data"].as_str().context("no picture")?;
        STANDARD.decode(data).context("read the picture")
    }
}
