"use strict";
(() => {

// ───────────────────────────── Small helpers ─────────────────────────────

const $ = id => document.getElementById(id);

/** Everything from outside enters the page as text, never as markup. */
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function button(words, act, attributes = {}) {
  const node = element("button", { type: "button", ...attributes }, words);
  node.onclick = act;
  return node;
}

const cell = (content, attributes = {}) => element("td", attributes, content);
const number = (content, label) => cell(content, { class: "number", "data-label": label });

/** The row of a topic, a subject or a session; `one` is whose it is. */
const rowOf = ({ topic = "", subject = "", session = "", node = "" }, ...cells) => element("tr", { "data-of": [topic, subject, session, node].join(" ") }, ...cells);

/** Has the body of a table become these rows. What stays the same is left alone: somebody may be about to press it. */
function renew(body, rows) {
  rows.forEach((row, at) => {
    const old = body.rows[at];
    if (!old) return body.append(row);
    if (old.dataset.of !== row.dataset.of || old.cells.length !== row.cells.length) return old.replaceWith(row);
    old.className = row.className;
    [...row.cells].forEach((cell, place) => old.cells[place].isEqualNode(cell) || old.cells[place].replaceWith(cell));
  });
  while (body.rows.length > rows.length) body.lastChild.remove();
}

/** A figure and its unit: [“12.3”, “k”]. Three digits are enough to judge by. */
function scaled(value, step, units) {
  let at = 0;
  while (Math.abs(value) >= step * 0.9995 && at < units.length - 1) { value /= step; at++; }
  const digits = value !== 0 && Math.abs(value) < 9.995 && !(at === 0 && Number.isInteger(value)) ? 2 : Math.abs(value) < 99.95 && at > 0 ? 1 : 0;
  return [value.toFixed(digits), units[at]];
}

const COUNT = value => value < 9999.5 ? [Number(value.toFixed(value < 10 ? 1 : 0)).toLocaleString("en"), ""] : [scaled(value, 1000, ["", "k", "M", "G"]).join(""), ""];
const BYTES = value => scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
const TIME = ms => ms < 1 ? [(ms * 1000).toFixed(0), "µs"] : ms < 1000 ? [ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0), "ms"] : [(ms / 1000).toFixed(1), "s"];
const text = parts => parts.filter(Boolean).join(" ");
const count = value => text(COUNT(value));
const whole = value => value.toLocaleString("en");
const bytes = value => text(BYTES(value));
const clock = at => new Date(at).toTimeString().slice(0, 8);

function duration(ms) {
  const [s, min, h] = [ms / 1000, ms / 60_000, ms / 3_600_000];
  return s < 90 ? `${Math.floor(s)} s` : min < 90 ? `${Math.floor(min)} min` : h < 36 ? `${Math.floor(h)} h` : `${Math.floor(h / 24)} days`;
}

// ───────────────────────────── The node ─────────────────────────────
// What one asks of it over HTTP, and the feed that tells how it is. The token never leaves the headers.

let token = sessionStorage.getItem("causeway.admin.token") ?? "";

function base64url(words) {
  const binary = Array.from(new TextEncoder().encode(words), byte => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The answer's JSON. Throws an error with `status` and the node's words where it refuses. */
async function ask(method, path, body) {
  const headers = { ...token && { Authorization: `Bearer ${token}` }, ...body && { "Content-Type": "application/json" } };
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
  const told = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(told.message ?? `the node answers ${answer.status}`), { status: answer.status });
  return told;
}

const BACKOFF = { first: 1000, most: 5000 };   // ms
const SILENT_AFTER = 5000;                     // ms; a node tells every second

/** One wish to be told. Comes back by itself, except where a person has to do something. Events: state · told */
class Feed extends EventTarget {
  state = "connecting";   // connecting · live · waiting · refused
  why = "";               // in words, where it is not live
  status = 0;             // of the refusal
  retryAt = 0;
  #socket = null; #pause = BACKOFF.first; #timer = 0; #watchdog = 0;

  open() {
    clearTimeout(this.#timer);
    this.#become("connecting", this.why);
    const url = new URL("admin/feed", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const offered = ["causeway.feed.v1", ...token ? [`causeway.bearer64.${base64url(token)}`] : []];
    const socket = this.#socket = new WebSocket(url, offered);
    socket.onmessage = ({ data }) => {
      this.#watch();
      this.#pause = BACKOFF.first;
      if (this.state !== "live") this.#become("live");
      this.dispatchEvent(new CustomEvent("told", { detail: JSON.parse(data) }));
    };
    socket.onclose = () => this.#ended();
    this.#watch();
  }

  /** A node that says nothing is as good as gone, whatever its socket looks like. */
  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => { this.#socket.onclose = null; this.#socket.close(); this.#ended(); }, SILENT_AFTER);
  }

  /** A browser does not tell why a WebSocket ended or was refused: the same path without an upgrade does. */
  async #ended() {
    clearTimeout(this.#watchdog);
    const socket = this.#socket;
    let why = "The node does not answer.", status = 0;
    try {
      await ask("GET", "admin/feed");
      why = "The connection was lost.";
    } catch (error) {
      if (error.status) [why, status] = [error.message, error.status];
    }
    if (socket !== this.#socket) return;
    this.status = status;
    if (status === 401 || status === 403) return this.#become("refused", why);
    this.retryAt = Date.now() + this.#pause;
    this.#timer = setTimeout(() => this.open(), this.#pause);
    this.#pause = Math.min(this.#pause * 1.6, BACKOFF.most);
    this.#become("waiting", why);
  }

  #become(state, why = "") {
    this.state = state;
    this.why = why;
    this.dispatchEvent(new CustomEvent("state"));
  }
}

// ───────────────────────────── What it has told ─────────────────────────────
// Totals become rates between two snapshots, by the node's own clock.

const WINDOW = { least: 30_000, most: 180_000 };   // ms that a chart shows
const LATENCY_WINDOW = 5;      // snapshots over which latencies are looked at
const MINUTE = 60_000;

class History {
  samples = [];
  #told = [];   // [at, snapshot] of the last minute
  #before = new Map();   // of each node: what it told last, and its rate since the time before

  add(snapshot, at = Date.now()) {
    if (this.last && this.last.nodes[0].life !== snapshot.nodes[0].life) this.#told = [];
    const before = this.last, earlier = this.#told.at(-LATENCY_WINDOW)?.[1] ?? before;
    this.#told.push([at, snapshot]);
    while (this.#told[0][0] < at - MINUTE - 1500) this.#told.shift();
    snapshot.nodes.forEach(node => this.#note(node));
    if (!before) return;
    const seconds = (snapshot.nodes[0].uptime_ms - before.nodes[0].uptime_ms) / 1000;
    const rate = name => (snapshot[name] - before[name]) / seconds;
    const delivery = spread(earlier.delivery, snapshot.delivery);
    this.samples.push({
      at, received: rate("messages_received"), receivedBytes: rate("bytes_received"), sent: rate("messages_sent"), sentBytes: rate("bytes_sent"),
      median: delivery(0.5), slowest: delivery(0.99), connections: snapshot.connections, subscriptions: snapshot.subscriptions,
      canary: snapshot.canary_misses > 1 ? null : snapshot.canary_ms,
    });
    while (this.samples[0].at < at - WINDOW.most) this.samples.shift();
  }

  get last() { return this.#told.at(-1)?.[1]; }

  /** A minute ago, or the earliest since. */
  get earlier() { return this.#told[0]?.[1]; }

  /** Deliveries a second of a node, once it has told twice. */
  rateOf({ life }) { return this.#before.get(life)?.rate; }

  #note({ life, uptime_ms, messages_sent }) {
    const before = this.#before.get(life);
    if (before?.uptime_ms === uptime_ms) return;
    const rate = before && (messages_sent - before.messages_sent) / (uptime_ms - before.uptime_ms) * 1000;
    this.#before.set(life, { uptime_ms, messages_sent, rate });
    if (this.#before.size > 512) this.#before.delete(this.#before.keys().next().value);
  }
}

/** Quantiles, in ms, of what was counted between two histograms; null where nothing was. */
function spread(before, now) {
  const counts = now.counts.map((count, i) => count - before.counts[i]);
  const all = counts.reduce((sum, count) => sum + count, 0);
  return quantile => {
    if (!all) return null;
    let below = 0, i = 0;
    while (i < counts.length - 1 && below + counts[i] < quantile * all) below += counts[i++];
    const low = i ? now.bounds_us[i - 1] : 0, high = now.bounds_us[i] ?? low;
    return (low + (high - low) * (counts[i] ? (quantile * all - below) / counts[i] : 0)) / 1000;
  };
}

// ───────────────────────────── The tiles ─────────────────────────────

const HEIGHT = 60, WIDTH = 600;   // of the drawing
const GAP = 3500;                 // ms without a sample that break the line

class Tile {
  #spec; #samples = []; #hovered = null;
  #value = element("span"); #unit = element("span", { class: "unit" }); #detail = element("p", { class: "detail" });
  #range = element("span"); #span = element("span");
  #traces; #under = svg("path", { class: "under" }); #cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });

  /**
   * `series` are read from a sample, the one that counts first; `detail` tells more, of the sample and the snapshot.
   * What spans orders of magnitude is `steep`: drawn by its logarithm.
   */
  constructor(spec) {
    this.#spec = spec;
    this.#traces = spec.series.map((_, i) => svg("path", { class: i ? "trace second" : "trace" }));
    const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, this.#under, ...this.#traces.toReversed(), this.#cursor);
    drawing.onpointermove = event => this.#hover(event.offsetX / drawing.clientWidth);
    drawing.onpointerleave = () => this.#hover(null);
    this.node = element("article", { class: "tile", id: spec.id },
      element("h2", {}, spec.name), element("p", { class: "value" }, this.#value, this.#unit), this.#detail,
      element("p", { class: "range" }, this.#range, this.#span), drawing);
  }

  draw(samples, snapshot) {
    this.#samples = samples;
    const last = samples.at(-1);
    if (!last) return;
    const { series: [main], words, per = "", detail } = this.#spec;
    const value = main(last);
    const [figure, unit] = value === null ? ["–", ""] : words(value);
    this.#value.textContent = figure;
    this.#unit.textContent = value === null ? "" : unit + per;
    const [more, tone] = [detail(last, snapshot)].flat();
    this.#detail.textContent = more;
    this.#detail.dataset.tone = tone ?? "";
    this.#trace(last.at);
    this.#tell();
  }

  /** How long the drawing is: it grows with what there is to draw. */
  get #window() {
    return Math.min(WINDOW.most, Math.max(WINDOW.least, this.#samples.at(-1).at - this.#samples[0].at));
  }

  #trace(now) {
    const { series, steep } = this.#spec, all = this.#samples.flatMap(sample => series.map(read => read(sample))).filter(value => value !== null);
    const top = Math.max(...all, 0) || 1, low = Math.min(...all, top) / 2 || top / 2, window = this.#window;
    const height = value => steep ? Math.log(value / low) / Math.log(top / low) : value / top;
    const x = at => WIDTH * (1 - (now - at) / window), y = value => HEIGHT - 1 - (HEIGHT - 6) * height(value);
    this.#spec.series.forEach((read, i) => {
      let path = "", under = "", began = null, before = null;
      const close = () => { if (before) under += `V${HEIGHT}H${began}Z`; };
      for (const sample of this.#samples) {
        const value = read(sample);
        if (value === null) { close(); before = null; continue; }
        const here = `${x(sample.at).toFixed(1)},${y(value).toFixed(1)}`;
        if (!before || sample.at - before.at > GAP) {
          close();
          began = x(sample.at).toFixed(1);
          path += `M${here}`; under += `M${began},${HEIGHT}L${here}`;
        } else { path += `L${here}`; under += `L${here}`; }
        before = sample;
      }
      close();
      this.#traces[i].setAttribute("d", path);
      if (i === 0 && !steep) this.#under.setAttribute("d", under);
    });
  }

  #hover(share) {
    this.#hovered = share;
    this.#cursor.setAttribute("visibility", share === null ? "hidden" : "visible");
    if (share !== null) for (const end of ["x1", "x2"]) this.#cursor.setAttribute(end, share * WIDTH);
    this.#tell();
  }

  /** What the drawing spans, or what was at the place that is pointed to. */
  #tell() {
    const { series: [main], words } = this.#spec, told = value => text(words(value));
    const now = this.#samples.at(-1)?.at;
    if (!now) return;
    if (this.#hovered !== null) {
      const at = now - this.#window * (1 - this.#hovered);
      const near = this.#samples.reduce((best, one) => Math.abs(one.at - at) < Math.abs(best.at - at) ? one : best);
      const value = main(near);
      this.#range.textContent = value === null ? "–" : told(value);
      this.#span.textContent = clock(near.at);
      return;
    }
    const values = this.#samples.map(main).filter(value => value !== null);
    const [low, high] = [Math.min(...values), Math.max(...values)].map(value => Number.isFinite(value) ? told(value) : "–");
    this.#range.textContent = low === high ? "steady" : `${low} to ${high}`;
    this.#span.textContent = `last ${duration(now - this.#samples[0].at + 1000)}`;
  }
}

const RATE = "/s";
const TILES = [
  { id: "received", name: "From Redis", words: COUNT, per: RATE, series: [one => one.received],
    detail: one => `messages, ${bytes(one.receivedBytes)}/s` },
  { id: "sent", name: "To clients", words: COUNT, per: RATE, series: [one => one.sent],
    detail: one => one.received > 0 ? `messages, each to ${count(one.sent / one.received)}` : "messages" },
  { id: "sent-bytes", name: "Bytes to clients", words: BYTES, per: RATE, series: [one => one.sentBytes],
    detail: one => one.sent > 0 ? `${bytes(one.sentBytes / one.sent)} a message` : "frames of all kinds" },
  { id: "delivery", name: "Delivery time, p99", words: TIME, steep: true, series: [one => one.slowest, one => one.median],
    detail: one => one.median === null ? "nothing delivered lately" : `median ${text(TIME(one.median))}, Redis to socket` },
  { id: "connections", name: "Connections", words: COUNT, series: [one => one.connections],
    detail: (one, now) => `room for ${count(now.connections_max)}, ${count(one.subscriptions)} subscriptions` },
  { id: "canary", name: "Canary round trip", words: TIME, steep: true, series: [one => one.canary],
    detail: (one, now) => !now.redis_link_up ? ["the link to Redis is down", "bad"]
      : now.canary_misses > 1 ? [`${now.canary_misses} did not come back`, "bad"]
      : `link to Redis up, ${now.redis_reconnects === 1 ? "lost once" : now.redis_reconnects ? `lost ${whole(now.redis_reconnects)} times` : "never lost"}` },
].map(spec => new Tile(spec));

// ───────────────────────────── Nodes, queues, reasons ─────────────────────────────

const PHASES = { serving: "", leading: "stops soon", draining: "draining" };

function showNodes(history, { nodes }) {
  const all = nodes.reduce((sum, node) => sum + node.connections, 0);
  const most = Math.max(...nodes.map(node => node.connections), 1);
  $("nodes-sum").textContent = nodes.length > 1 ? `${whole(all)} on ${nodes.length} nodes` : "the only node that answers";
  $("nodes").tBodies[0].replaceChildren(...nodes.map((node, at) => {
    const state = PHASES[node.phase] || (node.ready ? "" : "not ready");
    const dot = element("span", { class: "dot", "data-tone": node.phase !== "serving" ? "warn" : node.ready ? "good" : "bad", "aria-hidden": "true" });
    const bar = element("div", { class: "bar", "aria-hidden": "true" }, element("i"));
    bar.firstChild.style.width = `${100 * node.connections / most}%`;
    const rate = history.rateOf(node);
    return element("tr", {},
      cell(element("span", { class: "who" }, dot, element("span", {}, node.node, " ", element("small", {}, [at ? "" : "this node", state].filter(Boolean).join(", "))))),
      cell(element("div", { class: "share" }, element("span", {}, whole(node.connections)), bar)),
      number(rate === undefined ? "–" : `${count(rate)}/s`),
      cell(duration(node.uptime_ms), { class: "number spare" }));
  }));
}

/** A figure with a bar: how much of `most`, and the highest it was. */
function meter(name, words, value, most, { highest, tone = "" } = {}) {
  const bar = element("div", { class: "bar", role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": most, "aria-valuenow": Math.min(value, most), "aria-valuetext": words, "data-tone": tone }, element("i"));
  bar.firstChild.style.width = `${100 * Math.min(1, value / most)}%`;
  if (highest) {
    bar.append(element("b"));
    bar.lastChild.style.left = `calc(${100 * Math.min(1, highest / most)}% - 2px)`;
  }
  return element("div", {}, element("span", {}, name), element("span", {}, words), bar);
}

const LAG_BAD = 0.25;   // seconds, as in the alert rules

function showWaiting(now) {
  const { budget_bytes: budget, budget_used_bytes: used, outbox_bytes_highest: highest, worker_lag_seconds: lag } = now;
  const share = used / budget;
  $("waiting").replaceChildren(
    meter("Memory for all queues", `${bytes(used)} of ${bytes(budget)}`, used, budget, { tone: share > .9 ? "bad" : share > .8 ? "warn" : "" }),
    meter("Waiting for clients", `${bytes(now.outbox_bytes)}, highest ${bytes(highest)}`, now.outbox_bytes, budget, { highest }),
    meter("Waiting for workers", bytes(now.inbox_bytes), now.inbox_bytes, budget / 4),
    meter("Latest worker", `${text(TIME(lag * 1000))} late at worst`, lag, LAG_BAD, { tone: lag > LAG_BAD ? "bad" : "" }));
}

const CLOSES = {
  1000: "normal", 1001: "going away", 1002: "protocol error", 1003: "not text", 1006: "no close frame", 1007: "not UTF-8", 1008: "too many fragments",
  1009: "message too big", 1011: "internal error", 1012: "sent elsewhere", 4401: "token expired or revoked", 4403: "no longer allowed",
  4408: "no pong in time", 4413: "read too slowly", 4429: "too many commands", 4503: "node overloaded",
};

const LOSSES = now => Object.fromEntries([
  ...Object.entries(now.gaps).map(([reason, count]) => [`gap, ${reason.replaceAll("_", " ")}`, count]),
  ["dropped, overload", now.dropped_overload], ["dropped, too large", now.dropped_too_large],
]);

const REASONS = [
  { title: "Lost", none: "Nothing was lost.", of: LOSSES },
  { title: "Connections ended", none: "None has ended.",
    of: now => Object.fromEntries(Object.entries(now.closed).map(([code, count]) => [`${code} ${CLOSES[code] ?? ""}`, count])) },
  { title: "Upgrades refused", none: "None was refused.",
    of: now => Object.fromEntries(Object.entries(now.refused).map(([reason, count]) => [reason.replaceAll("_", " "), count])) },
];

function showReasons(now, earlier) {
  $("reasons").replaceChildren(...REASONS.map(({ title, none, of }) => {
    const before = of(earlier);
    const rows = Object.entries(of(now)).filter(([, total]) => total).map(([reason, total]) => [reason, total, total - (before[reason] ?? 0)])
      .sort((a, b) => b[2] - a[2] || b[1] - a[1]);
    const body = rows.map(([reason, total, fresh]) =>
      element("tr", fresh ? { class: "fresh" } : {}, cell(reason), number(whole(total)), number(fresh ? `+${whole(fresh)}` : "")));
    const table = element("table", {}, element("caption", { class: "unseen" }, title), element("thead", { class: "unseen" }, element("tr", {},
      ...["Reason", "Since the start", "In the last minute"].map(name => element("th", { scope: "col" }, name)))), element("tbody", {}, ...body));
    return element("div", {}, element("h3", {}, title), rows.length ? table : element("p", { class: "soft" }, none));
  }));
}

function showDrain({ drain, connections }) {
  $("draining").hidden = !drain;
  if (!drain) return;
  const gone = Math.max(0, drain.connections - drain.remaining);
  const most = Math.max(drain.connections, 1), left = Math.max(0, drain.lead_time_ms + drain.window_ms - drain.since_ms);
  $("drain-words").textContent = drain.is_closing
    ? `${whole(gone)} of ${whole(drain.connections)} connections are gone, ${whole(drain.remaining)} remain; ${duration(left + 999)} left of the window`
    : `${whole(connections)} connections; new ones are refused, the first is closed in ${duration(drain.lead_time_ms - drain.since_ms + 999)}`;
  $("drain-bar").firstChild.style.width = `${100 * gone / most}%`;
  $("drain-bar").setAttribute("aria-valuemax", most);
  $("drain-bar").setAttribute("aria-valuenow", gone);
}

// ───────────────────────────── What costs most ─────────────────────────────

const TOP_INTERVAL = 3000, TOP_ROWS = 8;

const search = (field, value) => button(value, () => {
  $("search").reset();
  $(`by-${field}`).value = value;
  findSessions();
  $("sessions-card").scrollIntoView({ block: "nearest" });
}, { class: "name", title: `Sessions with this ${field}` });

/** Sessions of two nodes may have one name. */
const sessionName = ({ node, session }) => `${session} ${node}`;

const without = missing => missing.length ? `without ${missing.join(", ")}` : "";

const PER_SECOND = value => `${count(value)}/s`;
const TOPIC_COLUMNS = [
  ["Topic", one => cell(search("topic", one.topic))], ["Deliveries", one => number(PER_SECOND(one.messages_per_second))],
  ["Payload", one => cell(`${bytes(one.bytes_per_second)}/s`, { class: "number spare" }), "number spare"], ["Subscribers", one => number(whole(one.subscribers))],
];
const CONNECTION_COLUMNS = [
  ["Subject", one => cell(search("subject", one.subject))], ["Session", one => cell(sessionName(one), { class: "mono spare" }), "spare"],
  ["Messages", one => number(count(one.messages))], ["Bytes", one => number(bytes(one.bytes))], ["Waiting", one => number(bytes(one.queued_bytes))],
];
const TOPS = [
  { table: "top-topics", select: "topics-by", of: "topics", measures: {
    by_messages: ["deliveries", TOPIC_COLUMNS], by_bytes: ["payload", TOPIC_COLUMNS], by_subscribers: ["subscribers", TOPIC_COLUMNS],
    by_drops: ["messages dropped", [TOPIC_COLUMNS[0], ["Dropped", one => number(whole(one.messages))]]] } },
  { table: "top-connections", select: "connections-by", of: "connections", measures: {
    by_messages: ["messages", CONNECTION_COLUMNS], by_bytes: ["bytes", CONNECTION_COLUMNS],
    by_drops: ["dropped when cut as slow", [CONNECTION_COLUMNS[0], ["Dropped", one => number(whole(one.messages))]]] } },
];
let top = null;

function showTop() {
  for (const { table, select, of, measures } of TOPS) {
    const [, columns] = measures[$(select).value], rows = top[of][$(select).value].slice(0, TOP_ROWS);
    const heads = columns.map(([name, , kind = "number"], at) => element("th", { scope: "col", class: at ? kind : undefined }, name));
    $(table).tHead.replaceChildren(element("tr", {}, ...heads));
    const none = element("tr", {}, cell("Nothing to tell.", { class: "empty", colspan: columns.length }));
    renew($(table).tBodies[0], rows.length ? rows.map(one => rowOf(one, ...columns.map(([, draw]) => draw(one)))) : [none]);
  }
}

async function lookAtTop() {
  if (feed.state !== "live" || document.hidden) return;
  try {
    top = await ask("GET", `admin/top?limit=${TOP_ROWS}`);
    $("top").hidden = $("sessions-card").hidden = false;
    for (const id of ["topics-without", "connections-without"]) $(id).textContent = without(top.missing);
    // Not under a pointer or a keyboard that is about to use one of its names.
    if (!$("top").matches(":has(tbody :focus-visible)")) showTop();
  } catch { /* the feed tells what is wrong */ }
}

for (const { select, measures } of TOPS) {
  $(select).append(...Object.entries(measures).map(([value, [words]]) => element("option", { value }, words)));
  $(select).onchange = () => top && showTop();
}

// ───────────────────────────── Sessions ─────────────────────────────

const PAGE = 10;   // sessions
let asked = null, next = null;   // what was searched for, and where its next page begins
let missing = [];                // nodes whose part of what is shown is not there

async function findSessions(cursor) {
  const wanted = cursor ? asked : Object.entries(Object.fromEntries(new FormData($("search")))).filter(([, value]) => value.trim()).map(([name, value]) => [name, value.trim()]);
  const query = new URLSearchParams([...wanted, ["limit", PAGE], ...cursor ? [["cursor", cursor]] : []]);
  try {
    const page = await ask("GET", `admin/sessions?${query}`);
    [asked, next, missing] = [wanted, page.next, cursor ? [...new Set([...missing, ...page.missing])] : page.missing];
    const body = $("sessions").tBodies[0], rows = page.sessions.map(sessionRow);
    if (cursor) body.append(...rows);
    else renew(body, rows);
    const found = body.rows.length;
    $("found").textContent = [found ? `${whole(found)}${next ? " and more" : ""}` : "none fits", without(missing)].filter(Boolean).join(", ");
    $("sessions").hidden = !found;
    $("more").hidden = !next;
    const subject = new Map(wanted).get("subject");
    $("disconnect-subject").hidden = !subject;
    $("disconnect-subject").textContent = subject ? `Disconnect ${subject} everywhere …` : "";
  } catch (error) {
    $("found").textContent = error.message;
  }
}

function sessionRow(one) {
  return rowOf(one,
    cell(one.session, { class: "mono", "data-label": "session" }), cell(one.node, { class: "mono", "data-label": "on" }), cell(one.subject, { class: "mono", "data-label": "subject" }),
    cell(one.address, { class: "mono", "data-label": "from" }), cell(`${duration(Date.now() - one.since * 1000)} ago`, { "data-label": "since" }),
    number(whole(one.subscriptions), "topics"), number(whole(one.messages), "messages"), number(bytes(one.bytes), "sent"), number(bytes(one.queued_bytes), "waiting"),
    element("td", { class: "acts-cell" },
      button("Unsubscribe …", () => unsubscribe(one), { class: "small", "aria-label": `Unsubscribe session ${sessionName(one)} …` }),
      button("Disconnect …", ({ currentTarget }) => disconnect({ node: one.node, session: one.session, subject: one.subject }, currentTarget.closest("tr")), { class: "small grave", "aria-label": `Disconnect session ${sessionName(one)} …` })));
}

$("search").onsubmit = event => { event.preventDefault(); findSessions(); };
$("more").onclick = () => findSessions(next);
$("disconnect-subject").onclick = () => disconnect({ subject: new Map(asked).get("subject") });

// ───────────────────────────── Acts ─────────────────────────────
// Each asks first, then says what became of it.

/** What was chosen in the dialog's field, `true` where it has none, or null where it was left. */
function confirmed({ title, words, field = null, yes, grave = false }) {
  const dialog = $("ask");
  $("ask-title").textContent = title;
  $("ask-text").textContent = words;
  $("ask-field").replaceChildren(...field ? [element("label", { for: field.id }, field.dataset.label), field] : []);
  $("ask-yes").textContent = yes;
  $("ask-yes").classList.toggle("grave", grave);
  return new Promise(resolve => {
    let answer = null;
    $("ask-form").onsubmit = event => { event.preventDefault(); answer = field ? field.value : true; dialog.close(); };
    $("ask-no").onclick = () => dialog.close();
    dialog.onclose = () => resolve(answer);
    dialog.showModal();
    (field ?? $("ask-no")).focus();
  });
}

async function act(question, path, body, told) {
  const answer = await confirmed(question);
  if (answer === null) return false;
  const [where, what] = [path, body].map(part => typeof part === "function" ? part(answer) : part);
  try {
    log(told(await ask("POST", where, what)));
    return true;
  } catch (error) {
    log(`${question.title} failed: ${error.message}`, "bad");
    return false;
  }
}

$("reload").onclick = () => act(
  { title: "Reload configuration", words: "The node reads its file again. It is all or nothing, and drops no connection.", yes: "Reload" },
  "admin/reload", undefined,
  ({ changed, needs_restart }) => {
    const list = changes => changes.map(({ key, from, to }) => `${key} ${from} → ${to}`).join("; ");
    const rest = needs_restart?.length ? ` Needs a restart: ${list(needs_restart)}.` : "";
    return (changed.length ? `Reloaded: ${list(changed)}.` : "Reloaded: nothing has changed.") + rest;
  });

$("shed").onclick = () => act(
  { title: "Shed a share of the connections", yes: "Shed", words: "So many are sent to other nodes, over the drain's window. Each is told when to come back; the node stays ready.",
    field: element("input", { id: "percent", type: "number", min: 1, max: 100, value: 10, required: "", inputmode: "numeric", "data-label": "Percent" }) },
  percent => `admin/shed?percent=${encodeURIComponent(percent)}`, undefined,
  ({ told, of, window_ms }) => `${whole(told)} of ${whole(of)} connections are sent elsewhere, within ${duration(window_ms)}.`);

$("drain").onclick = () => act(
  { title: "Drain this node", yes: "Drain and stop", grave: true,
    words: `Nobody is let in any more, all ${whole(history.last?.connections ?? 0)} connections are sent elsewhere, and then the process ends. It cannot be taken back; whether the node starts again is up to its supervisor.` },
  "admin/drain", undefined,
  ({ connections, window_ms }) => `Draining: ${whole(connections)} connections within ${duration(window_ms)}, then the node stops.`);

/** What became of an order that one session is meant by: other nodes are told, and say nothing of it. */
function outcome({ node, session, subject }, count, done, missed) {
  if (node !== history.last.nodes[0].node) return `${node} was told: session ${session} of ${subject} ${done}.`;
  return count ? `Session ${session} of ${subject} ${done}.` : `Session ${session} ${missed}.`;
}

async function disconnect(who, row) {
  const code = element("select", { id: "code", "data-label": "The client is told" },
    element("option", { value: 4403 }, "4403: do not come back"), element("option", { value: 4401 }, "4401: come back with a fresh token"),
    element("option", { value: 1012 }, "1012: come back at once"));
  const words = who.session
    ? `Ends session ${who.session} of ${who.subject} on ${who.node}. What waits for it is dropped.`
    : `Ends every connection of ${who.subject}, on all nodes. What waits for them is dropped. Who does not mind the code may come back: revoke the token to prevent it.`;
  const done = await act({ title: "Disconnect", words, field: code, yes: "Disconnect", grave: true }, "admin/disconnect", code => ({ ...who, code: Number(code) }),
    ({ disconnected }) => who.session
      ? outcome(who, disconnected, "is disconnected", "had gone already")
      : `Connections of ${who.subject} that are ended on this node: ${whole(disconnected)}. The other nodes were told.`);
  if (!done) return;
  if (row) { row.className = "gone"; row.querySelectorAll("button").forEach(one => { one.disabled = true; }); }
  else findSessions();
}

async function unsubscribe({ node, session, subject }) {
  const topic = new Map(asked ?? []).get("topic") ?? $("by-topic").value.trim();
  const field = element("input", { id: "ended-topic", value: topic, required: "", maxlength: 200, autocapitalize: "none", spellcheck: "false", "data-label": "Topic" });
  const done = await act({ title: "Unsubscribe", words: `Ends a subscription of session ${session} of ${subject} on ${node}. The client is told, and may subscribe again.`, field, yes: "Unsubscribe" },
    "admin/unsubscribe", topic => ({ node, session, subject, topic: topic.trim() }),
    ({ unsubscribed }) => outcome({ node, session, subject }, unsubscribed, `is unsubscribed from ${field.value.trim()}`, `was not subscribed to ${field.value.trim()}`));
  if (done && asked) findSessions();
}

// ───────────────────────────── What happened ─────────────────────────────

const LOG_MAX = 100;

function log(words, tone = "") {
  $("log").prepend(element("li", { "data-tone": tone }, element("time", {}, clock(Date.now())), element("span", {}, words)));
  while ($("log").children.length > LOG_MAX) $("log").lastChild.remove();
}

// ───────────────────────────── The page ─────────────────────────────

const feed = new Feed(), history = new History();
$("tiles").append(...TILES.map(tile => tile.node));

const STATES = { connecting: "connecting …", live: "live", waiting: "", refused: "refused" };

function showStatus() {
  const { state, why, status } = feed, live = state === "live";
  document.body.dataset.state = state;
  $("all").hidden = !history.last;
  const wait = Math.max(0, Math.ceil((feed.retryAt - Date.now()) / 1000));
  $("status").textContent = state === "waiting" ? `back in ${wait} s` : state === "refused" && status === 401 ? "token needed" : STATES[state];
  $("status").dataset.tone = live ? "good" : state === "refused" ? "bad" : "warn";
  for (const id of ["reload", "shed", "drain"]) $(id).disabled = !live || history.last?.drain && id !== "reload";
  if (!live) $("ready").hidden = true;
  $("notice").hidden = live || !why || status === 401;
  $("notice").dataset.tone = state === "refused" ? "bad" : "warn";
  $("notice").textContent = $("notice").hidden ? ""
    : `${why}${history.last ? " What is shown is from before." : ""}${state === "waiting" ? " The page connects again by itself." : ""}`;
  $("token-form").hidden = status !== 401 || state !== "refused";
}

let wasLive = false;
feed.addEventListener("state", () => {
  if (wasLive && feed.state === "waiting") log(`${feed.why} Connecting again.`, "bad");
  if (feed.state === "refused" && feed.status === 401 && token) {
    log("The token was refused.", "bad");
    token = "";
    sessionStorage.removeItem("causeway.admin.token");
  }
  if (feed.state === "live") lookAtTop();
  if (feed.state !== "connecting") wasLive = feed.state === "live";
  showStatus();
  if (feed.status === 401 && feed.state === "refused") $("token").focus();
});

feed.addEventListener("told", ({ detail: now }) => {
  const before = history.last, [self] = now.nodes;
  history.add(now);
  $("all").hidden = false;
  if (!before) log(`Connected to ${self.node}.`);
  else if (before.nodes[0].life !== self.life) log(`The node was restarted ${duration(self.uptime_ms)} ago.`);
  $("node").textContent = self.node;
  document.title = `${self.node}, Causeway operator`;
  const unready = now.drain ? "draining" : now.unready;
  $("ready").hidden = false;
  $("ready").textContent = unready ?? "ready";
  $("ready").dataset.tone = !unready ? "good" : now.drain ? "warn" : "bad";
  for (const id of ["shed", "drain"]) $(id).disabled = Boolean(now.drain);
  for (const tile of TILES) tile.draw(history.samples, now);
  showNodes(history, now);
  showWaiting(now);
  showReasons(now, history.earlier);
  showDrain(now);
});

$("token-form").onsubmit = event => {
  event.preventDefault();
  token = $("token").value;
  $("token").value = "";
  sessionStorage.setItem("causeway.admin.token", token);
  feed.open();
};

setInterval(() => { if (feed.state === "waiting") showStatus(); }, 500);
setInterval(lookAtTop, TOP_INTERVAL);
showStatus();
feed.open();

})();
