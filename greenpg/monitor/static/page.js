"use strict";

const RETRY = 1000; // ms until a lost stream is opened again
const SILENCE = 5000; // ms without an event, after which it is opened again
const at = (id) => document.getElementById(id);

const series = new Map(); // the samples of each card, by its key
let sample = null; // the number of the last one

// Texts come in as text nodes only: names and places may contain anything.
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// One child for each item; an item's own is kept, so that a selection and an open stack survive.
function rows(parent, items, key, make, fill) {
  const before = [...parent.children];
  const after = items.map((item) => {
    const index = before.findIndex((child) => child.key === key(item));
    const child = index < 0 ? make() : before.splice(index, 1)[0];
    child.key = key(item);
    fill(child, item);
    return child;
  });
  const same = after.every((child, index) => child === parent.children[index]);
  if (!same || before.length) parent.replaceChildren(...after);
}

function from(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // of this file, without data
  return () => template.content.firstElementChild.cloneNode(true);
}

const find = (element, selector) => element.querySelector(selector);

function seconds(value) {
  if (value >= 3600) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  if (value >= 60) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value >= 1) return `${value.toFixed(1)} s`;
  return `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms`;
}

const clock = (time) => new Date(time * 1000).toLocaleTimeString();

// Stacks

function stack(details, text) {
  details.hidden = !text;
  set(find(details, "pre"), text || "");
}

// Charts

function chart(figure, values, kept, label) {
  const top = Math.max(...values, 0);
  const points = values.map((value, index) => {
    const x = kept - values.length + index;
    return `${x},${(39 - (top ? (38 * value) / top : 0)).toFixed(1)}`;
  });
  find(figure, "svg").setAttribute("viewBox", `0 0 ${kept - 1} 40`);
  find(figure, "polyline").setAttribute("points", points.join(" "));
  const text = label(values.length ? values[values.length - 1] : 0, top);
  set(find(figure, "figcaption"), text);
  find(figure, "svg").setAttribute("aria-label", text);
}

// What all cards have

const BARS = `<div class="bar sessions" role="img">
    <i class="in-use"></i><i class="connecting"></i><i class="idle"></i></div>
  <div class="bar thin" role="img"><i class="waiting"></i></div>`;

const figure = (kind) => `<figure class="${kind}">
  <svg role="img" preserveAspectRatio="none"><polyline/></svg><figcaption></figcaption></figure>`;

const newCard = (bars, charts, lists) => from(`<article>
  <h2></h2>
  ${bars}
  <p class="numbers"></p>
  <p class="totals"></p>
  <div class="charts">${charts.map(figure).join("")}</div>
  ${lists.map(([title, kind]) => `<h3>${title}</h3><div class="${kind}"></div>`).join("")}
</article>`);

function fillCard(card, one, text, totals, alarming) {
  set(find(card, "h2"), one.name);
  set(find(card, ".numbers"), text);
  find(card, ".numbers").classList.toggle("wait", alarming);
  set(find(card, ".totals"), totals);
}

function fillBars(card, one, text, most) {
  for (const [cls, count, all] of [
    ["in-use", one.in_use, one.max],
    ["connecting", one.connecting, one.max],
    ["idle", one.idle, one.max],
    ["waiting", one.waiting, most],
  ]) {
    const share = Math.min(1, count / Math.max(all, 1));
    find(card, `i.${cls}`).style.width = `${100 * share}%`;
  }
  find(card, ".sessions").setAttribute("aria-label", text);
  find(card, ".thin").setAttribute("aria-label", `${one.waiting} waiting`);
}

function fillCharts(card, one, data, what, wait) {
  const samples = series.get(one.key) || [];
  const minutes = `${(data.kept * data.step) / 60} min`;
  const rates = samples.map((sample) => sample[0]);
  chart(find(card, ".rate"), rates, data.kept, (now, top) =>
    `${now.toFixed(1)} ${what}/s; ${minutes}: up to ${top.toFixed(1)}`);
  if (!wait) return;
  const waits = samples.map((sample) => sample[1]);
  chart(find(card, ".slow"), waits, data.kept, (now, top) =>
    `${wait} ${seconds(now)}; ${minutes}: up to ${seconds(top)}`);
}

function ends(closed) {
  const some = Object.entries(closed).filter((pair) => pair[1]);
  const text = some.map(([reason, count]) => `${count} ${reason}`).join(", ");
  return `closed connections: ${text || "none"}`;
}

const newRow = from(`<div class="row"><b></b> <code></code><small></small></div>`);

function fillRow(row, age, code, text) {
  set(find(row, "b"), age);
  set(find(row, "code"), code);
  set(find(row, "small"), text);
}

const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

// Pools

const newPool = newCard(BARS, ["rate", "slow"], [["Held", "holders"], ["Waiting", "waiters"]]);
const newHolder = from(`<div class="row"><b></b> <code></code><small></small>
  <details hidden><summary>stack</summary><pre></pre></details></div>`);

function fillPool(card, pool, data) {
  const text =
    `${pool.in_use} in use, ${pool.idle} idle, ${pool.connecting} connecting, ` +
    `${pool.waiting} waiting; at most ${pool.max}`;
  const totals = `${counted(pool.served, "loan")}, ${pool.timeouts} timed out; ${ends(pool.closed)}`;
  fillCard(card, pool, text, totals, pool.waiting > 0);
  fillBars(card, pool, text, pool.max);
  fillCharts(card, pool, data, "loans", "wait");
  rows(find(card, ".holders"), pool.holders, holderKey, newHolder, fillHolder);
  rows(find(card, ".waiters"), pool.waiters, (waiter) => waiter.place, newRow, fillWaiter);
  more(find(card, ".holders"), pool.in_use - pool.holders.length);
}

const holderKey = (holder) => `${holder.pid} ${holder.task} ${holder.place}`;

function more(list, count) {
  list.dataset.more = count > 0 ? `and ${count} more` : "";
}

function fillHolder(row, holder) {
  set(find(row, "b"), seconds(holder.seconds));
  set(find(row, "code"), holder.place);
  const pid = holder.pid === null ? "" : `, server process ${holder.pid}`;
  set(find(row, "small"), `${holder.state}${pid}, ${holder.task || "its task is gone"}`);
  stack(find(row, "details"), holder.stack);
}

function fillWaiter(row, waiter) {
  fillRow(row, seconds(waiter.seconds), waiter.place, counted(waiter.count, "task"));
}

// Multiplexers

const newMultiplexer = newCard(
  BARS,
  ["rate", "slow"],
  [["Connections", "lines"], ["Slow statements", "slowest"]],
);

function fillMultiplexer(card, one, data) {
  const text =
    `${counted(one.connections, "connection")} of at most ${one.max}, ` +
    `${one.in_flight} in flight, ${one.waiting} waiting`;
  const totals =
    `${counted(one.statements, "statement")}, ${one.failed} failed, ${one.slow} slow, ` +
    `${one.prepared} prepared; ${ends(one.closed)}`;
  fillCard(card, one, text, totals, one.waiting > 0);
  fillBars(card, one, text, one.in_flight + one.waiting);
  fillCharts(card, one, data, "statements", "latency");
  rows(find(card, ".lines"), one.lines, (line) => line.pid, newRow, fillLine);
  rows(find(card, ".slowest"), one.slowest, (slow) => slow.text, newRow, fillSlow);
}

function fillLine(row, line) {
  const age = line.in_flight ? seconds(line.seconds) : "idle";
  const text = `server process ${line.pid}, ${line.in_flight} in flight, ${line.prepared} prepared`;
  fillRow(row, age, line.text || "", text);
}

function fillSlow(row, slow) {
  fillRow(row, seconds(slow.seconds), slow.text, "");
}

// Listeners

const newListener = newCard("", ["rate"], [["Channels", "channels"]]);

function fillListener(card, one, data) {
  const text =
    `${one.state}; ${counted(one.subscriptions, "subscription")} ` +
    `to ${counted(one.channels, "channel")}`;
  const totals =
    `${counted(one.notifications, "notification")}, connected ${counted(one.connects, "time")}, ` +
    `${counted(one.failures, "failure")}`;
  fillCard(card, one, text, totals, one.state === "connecting");
  fillCharts(card, one, data, "notifications");
  rows(find(card, ".channels"), one.listened, (channel) => channel.name, newRow, fillChannel);
  more(find(card, ".channels"), one.channels - one.listened.length);
}

function fillChannel(row, channel) {
  fillRow(row, "", channel.name, counted(channel.subscribers, "subscription"));
}

// Stalls and errors

const newStall = from(`<div class="row"><b></b> <span></span>
  <details><summary>stack</summary><pre></pre></details></div>`);
const newError = from(`<div class="row"><b></b> <span></span><small></small></div>`);

const errorKey = (error) => `${error.source} ${error.what} ${error.error} ${error.sqlstate}`;

function fillStall(row, stall) {
  set(find(row, "b"), seconds(stall.seconds));
  set(find(row, "span"), `at ${clock(stall.at)}`);
  stack(find(row, "details"), stall.stack);
}

function fillError(row, error) {
  const state = error.sqlstate ? ` ${error.sqlstate}` : "";
  const times = error.count > 1 ? `, ${error.count} times` : "";
  set(find(row, "b"), `${error.what}: ${error.error}${state}`);
  set(find(row, "span"), `${error.source}, at ${clock(error.at)}${times}`);
  set(find(row, "small"), error.text || "");
}

const KINDS = [
  ["pools", newPool, fillPool],
  ["multiplexers", newMultiplexer, fillMultiplexer],
  ["listeners", newListener, fillListener],
];

function fill(data) {
  const process = data.process;
  set(
    at("process"),
    `process ${process.pid} on ${process.host}, ${process.backend}, ` +
      `greenpg ${process.version}, Python ${process.python}, ` +
      `since ${new Date(process.started * 1000).toLocaleString()}`,
  );
  for (const [kind, make, fillOne] of KINDS) {
    rows(at(kind), data[kind], (one) => one.key, make, (card, one) => fillOne(card, one, data));
  }
  const stalls = data.stalls;
  const sum = `${stalls.count} in all, ${seconds(stalls.seconds)} together`;
  set(at("watched"), stalls.watched ? sum : "not watched; the program may call greenpg.watch()");
  rows(at("stalls"), stalls.last, (stall) => stall.at, newStall, fillStall);
  rows(at("errors"), data.errors, errorKey, newError, fillError);
  const kinds = Object.entries(process.interrupts).map(([kind, count]) => `${count} ${kind}`);
  set(
    at("counts"),
    `interrupts: ${kinds.join(", ")}; cancel requests: ${process.cancels}; ` +
      `failed repairs: ${process.failed_repairs}`,
  );
}

// Events

function note(data) {
  const fresh = data.sample !== sample;
  const all = KINDS.flatMap(([kind]) => data[kind]);
  for (const one of all) {
    if (one.samples) series.set(one.key, one.samples);
    else if (fresh && one.last) {
      series.set(one.key, [...(series.get(one.key) || []), one.last].slice(-data.kept));
    }
  }
  const keys = new Set(all.map((one) => one.key));
  for (const key of series.keys()) if (!keys.has(key)) series.delete(key);
  sample = data.sample;
}

function tell(text, lost) {
  set(at("link"), text);
  at("link").classList.toggle("lost", lost);
}

let source = null;
let timer = 0;

function listen() {
  hush();
  source = new EventSource(`events${location.search}`);
  source.onmessage = (event) => {
    const data = JSON.parse(event.data);
    note(data);
    fill(data);
    tell("live", false);
    document.documentElement.dataset.tick = data.tick;
    again(SILENCE, "nothing heard: the event loop may be held up");
  };
  source.onerror = () => {
    source.close(); // it would not try again after an answer such as 502
    tell("not connected, trying again", true);
    again(RETRY, "not connected, trying again");
  };
  again(SILENCE, "no answer: the event loop may be held up");
}

// Open the stream again after so many ms, unless an event comes before.
function again(ms, text) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    tell(text, true);
    listen();
  }, ms);
}

function hush() {
  clearTimeout(timer);
  if (source) source.close();
}

// A browser has few connections to a server: a page that nobody sees keeps none.
document.addEventListener("visibilitychange", () => (document.hidden ? hush() : listen()));
if (!document.hidden) listen();
