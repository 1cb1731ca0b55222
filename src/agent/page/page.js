// Draws what /status.json tells, anew every two seconds. Texts are set as texts, never as markup: peers write some.
"use strict";
const EVERY = 2000;
const SVG = "http://www.w3.org/2000/svg";
const SHOWN = 12; // peers in the picture; the table has all
let last;
const byId = (id) => document.getElementById(id);

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const conditions = (of) => of.conditions || [];
const condition = (of, type) => conditions(of).find((it) => it.type === type);

// How a peer stands as a colour: never the only sign, its phase stands beside.
function tone(peer) {
  if ((condition(peer, "Consented") || {}).reason === "NoEdge") return "quiet";
  const amiss = conditions(peer).some((it) => it.status === "False");
  if (peer.phase === "Federated") return amiss ? "move" : "good";
  return amiss ? "bad" : "move";
}
const ORDER = ["bad", "move", "good", "quiet"];

// Writes only what changed, so that what somebody reads or marks stays where it is.
function put(id, ...children) {
  const place = byId(id);
  const made = place.cloneNode(false);
  made.append(...children);
  if (made.innerHTML !== place.innerHTML) place.replaceChildren(...made.childNodes);
}

function distance(text, now) {
  const seconds = Math.round((Date.parse(text) - now) / 1000);
  if (Number.isNaN(seconds)) return "–";
  const size = Math.abs(seconds);
  const [count, unit] = size < 120 ? [size, "s"] : size < 7200 ? [Math.floor(size / 60), "min"]
    : size < 172800 ? [Math.floor(size / 3600), "h"] : [Math.floor(size / 86400), "d"];
  return seconds < 0 ? `${count} ${unit} ago` : `in ${count} ${unit}`;
}

// Our trust domain in the middle, peers around it: who is not well first, and too many as a number.
function graph(own, all) {
  const sorted = [...all].sort((a, b) => ORDER.indexOf(tone(a)) - ORDER.indexOf(tone(b)));
  const peers = sorted.slice(0, all.length > SHOWN ? SHOWN - 1 : SHOWN);
  const rest = sorted.slice(peers.length);
  const words = peers.map((it) => `${it.trustDomain}: ${it.phase || "not known"}`).join(", ");
  const more = rest.length ? `, and ${rest.length} more` : "";
  const title = peers.length ? `${own} and its peers: ${words}${more}` : `${own} has no peers`;
  if (rest.length) {
    const federated = rest.filter((it) => it.phase === "Federated").length;
    peers.push({ trustDomain: `${rest.length} more`, phase: `${federated} federated`, tone: tone(rest[0]) });
  }
  const width = Math.max(280, byId("graph").clientWidth);
  const tree = width < 640;
  const step = 52, radius = 13;
  const from = tree ? { x: 20, y: 20 } : { x: 20, y: Math.max(40, (peers.length * step) / 2) };
  const column = tree ? 52 : width * 0.56;
  const rowOf = (index) => tree ? 72 + index * step : step / 2 + index * step;
  const height = Math.max(from.y + 40, peers.length ? rowOf(peers.length - 1) + 34 : 0);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  peers.forEach((peer, index) => {
    const y = rowOf(index);
    const group = drawn("g", { class: peer.tone || tone(peer) });
    const start = tree ? `M ${from.x} ${from.y} V ${y} H` : `M ${from.x} ${from.y} C ${column / 2} ${from.y} ${column / 2} ${y}`;
    group.append(drawn("path", { d: `${start} ${column}${tree ? "" : ` ${y}`}` }));
    group.append(drawn("circle", { cx: column, cy: y, r: radius }));
    group.append(label(peer.trustDomain, column + 24, y - 1, width));
    group.append(drawn("text", { x: column + 24, y: y + 17, class: "small" }, peer.phase || "not known"));
    svg.append(group);
  });
  svg.append(drawn("circle", { cx: from.x, cy: from.y, r: 17 }));
  // Above the middle line, so that none of the lines runs through it.
  svg.append(tree ? label(own, from.x + 28, from.y + 5, width) : label(own, 2, from.y - 26, column));
  return svg;
}

// A name that is drawn narrower where it would not fit.
function label(text, x, y, until) {
  const room = until - x - 4;
  const fit = text.length * 8.6 > room ? { textLength: room, lengthAdjust: "spacingAndGlyphs" } : {};
  return drawn("text", { x, y, ...fit }, text);
}

function row(peer, now) {
  const tr = element("tr", undefined, { role: "row" });
  const name = element("th", peer.trustDomain, { scope: "row", role: "rowheader" });
  name.append(element("span", peer.message || "", { class: "quiet says" }));
  tr.append(name);
  const confirmed = condition(peer, "Confirmed");
  const held = peer.heldBack || [];
  const cells = [
    ["Phase", peer.phase || "–", `badge ${tone(peer)}`],
    ["Serial", peer.version || "–"],
    ["Confirmed", confirmed ? confirmed.status : "–"],
    ["First key ends", peer.earliestExpiry ? distance(peer.earliestExpiry, now) : "–"],
    ["Delivered", peer.lastDelivered ? distance(peer.lastDelivered, now) : "–"],
    ["Registrations", peer.registrations],
    ["Held back", held.length ? held.join(", ") : "none"],
  ];
  for (const [label, text, kind] of cells) {
    tr.append(element("td", text, { role: "cell", "data-label": label, ...(kind ? { class: kind } : {}) }));
  }
  return tr;
}

function commit(one, now) {
  const li = element("li");
  li.append(element("code", one.revision.slice(0, 8)), ` ${one.subject || ""} `, element("span", distance(one.since, now), { class: "quiet" }));
  return li;
}

function complaints(gitSync) {
  const amiss = conditions(gitSync).filter((it) => it.status === "False").map((it) => `${it.type}: ${it.message}`);
  const lists = ["failures", "diagnostics", "unhealthy", "drifted", "contested", "shared"];
  return amiss.concat(...lists.map((list) => gitSync[list] || []));
}

function show(told) {
  last = told;
  const { gitSync, trustPeers: peers } = told;
  const now = Date.parse(told.now);
  const federated = peers.filter((it) => it.phase === "Federated").length;
  const word = told.ready ? "Ready" : "Not ready";
  document.title = `${word}: ${gitSync.cluster} – Trustweave`;
  byId("cluster").textContent = gitSync.cluster;
  const declared = peers.filter((it) => tone(it) !== "quiet");
  const summary = `${word}. ${federated} of ${declared.length} ${declared.length === 1 ? "peer is" : "peers are"} federated.`;
  if (byId("summary").textContent !== summary) byId("summary").textContent = summary;
  byId("summary").className = `badge ${told.ready ? "good" : "bad"}`;
  put("graph", graph(gitSync.trustDomain, peers));
  put("rows", ...peers.map((it) => row(it, now)));
  const wrong = complaints(gitSync);
  byId("wrong").hidden = wrong.length === 0;
  put("complaints", ...wrong.map((it) => element("li", it)));
  const facts = [
    ["Revision in force", gitSync.revision || "–"],
    ["Last change", gitSync.lastChange ? distance(gitSync.lastChange, now) : "–"],
    ["Objects of the overlay", gitSync.objects],
    ["Published", gitSync.published ? `serial ${gitSync.published.serial} on ${gitSync.published.branch}` : "nothing yet"],
    ["Signing key", gitSync.signer || "–"],
    ["Bundle source", gitSync.bundleSource || "–"],
  ];
  put("repository", ...facts.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
  put("commits", ...(gitSync.history || []).map((it) => commit(it, now)));
  byId("time").textContent = `As of ${told.now}, version ${told.version}.`;
}

async function look() {
  if (document.hidden) return setTimeout(look, EVERY);
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    show(await answer.json());
    document.body.classList.remove("stale");
  } catch (error) {
    // What stood last stays, and is marked.
    document.body.classList.add("stale");
    byId("summary").textContent = `The agent does not answer: ${error.message}`;
    byId("summary").className = "badge bad";
  }
  setTimeout(look, EVERY);
}

look();
window.addEventListener("resize", () => last && put("graph", graph(last.gitSync.trustDomain, last.trustPeers)));
