"use strict";

const RETRY = 1000; // ms until a lost stream is opened again
const SILENCE = 5000; // ms without an event, after which it is opened again
const at = (id) => document.getElementById(id);

const series = new Map(); // the samples of each pool, by its key
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

// Pools

const newPool = from(`<article>
  <h2></h2>
  <div class="bar sessions" role="img">
    <i class="in-use"></i><i class="connecting"></i><i class="idle"></i></div>
  <div class="bar thin" role="img"><i class="waiting"></i></div>
  <p class="numbers"></p>
  <p class="totals"></p>
  <div class="charts">
    <figure class="rate">
      <svg role="img" preserveAspectRatio="none"><polyline/></svg><figcaption></figcaption></figure>
    <figure class="slow">
      <svg role="img" preserveAspectRatio="none"><polyline/></svg><figcaption></figcaption></figure>
  </div>
  <h3>Held</h3>
  <div class="holders"></div>
  <h3>Waiting</h3>
  <div class="waiters"></div>
</article>`);

const newHolder = from(`<div class="row"><b></b> <code></code><small></small>
  <details hidden><summary>stack</summary><pre></pre></details></div>`);
const newWaiter = from(`<div class="row"><b></b> <code></code><small></small></div>`);

function fillPool(card, pool, data) {
  set(find(card, "h2"), pool.name);
  for (const [cls, count] of [
    ["in-use", pool.in_use],
    ["connecting", pool.connecting],
    ["idle", pool.idle],
    ["waiting", pool.waiting],
  ]) {
    const share = Math.min(1, count / Math.max(pool.max, 1));
    find(card, `i.${cls}`).style.width = `${100 * share}%`;
  }
  const text =
    `${pool.in_use} in use, ${pool.idle} idle, ${pool.connecting} connecting, ` +
    `${pool.waiting} waiting; at most ${pool.max}`;
  set(find(card, ".numbers"), text);
  find(card, ".numbers").classList.toggle("wait", pool.waiting > 0);
  find(card, ".sessions").setAttribute("aria-label", text);
  find(card, ".thin").setAttribute("aria-label", `${pool.waiting} waiting`);
  const closed = Object.entries(pool.closed).filter((pair) => pair[1]);
  const ends = closed.map(([reason, count]) => `${count} ${reason}`).join(", ") || "none";
  set(
    find(card, ".totals"),
    `${pool.served} loans, ${pool.timeouts} timed out; closed connections: ${ends}`,
  );
  const samples = series.get(pool.key) || [];
  const minutes = `${(data.kept * data.step) / 60} min`;
  const rates = samples.map((sample) => sample[0]);
  const waits = samples.map((sample) => sample[1]);
  chart(find(card, ".rate"), rates, data.kept, (now, top) =>
    `${now.toFixed(1)} loans/s; ${minutes}: up to ${top.toFixed(1)}`);
  chart(find(card, ".slow"), waits, data.kept, (now, top) =>
    `wait ${seconds(now)}; ${minutes}: up to ${seconds(top)}`);
  rows(find(card, ".holders"), pool.holders, holderKey, newHolder, fillHolder);
  rows(find(card, ".waiters"), pool.waiters, (waiter) => waiter.place, newWaiter, fillWaiter);
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
  set(find(row, "b"), seconds(waiter.seconds));
  set(find(row, "code"), waiter.place);
  set(find(row, "small"), waiter.count > 1 ? `${waiter.count} tasks` : "1 task");
}

// Stalls and errors

const newStall = from(`<div class="row"><b></b> <span></span>
  <details><summary>stack</summary><pre></pre></details></div>`);
const newError = from(`<div class="row"><b></b> <span></span><small></small></div>`);

const errorKey = (error) => `${error.pool} ${error.what} ${error.error} ${error.sqlstate}`;

function fillStall(row, stall) {
  set(find(row, "b"), seconds(stall.seconds));
  set(find(row, "span"), `at ${clock(stall.at)}`);
  stack(find(row, "details"), stall.stack);
}

function fillError(row, error) {
  const state = error.sqlstate ? ` ${error.sqlstate}` : "";
  const times = error.count > 1 ? `, ${error.count} times` : "";
  set(find(row, "b"), `${error.what}: ${error.error}${state}`);
  set(find(row, "span"), `pool ${error.pool}, at ${clock(error.at)}${times}`);
  set(find(row, "small"), error.text || "");
}

function fill(data) {
  const process = data.process;
  set(
    at("process"),
    `process ${process.pid} on ${process.host}, ${process.backend}, ` +
      `greenpg ${process.version}, Python ${process.python}, ` +
      `since ${new Date(process.started * 1000).toLocaleString()}`,
  );
  rows(
    at("pools"),
    data.pools,
    (pool) => pool.key,
    newPool,
    (card, pool) => fillPool(card, pool, data),
  );
  const stalls = data.stalls;
  const counted = `${stalls.count} in all, ${seconds(stalls.seconds)} together`;
  set(at("watched"), stalls.watched ? counted : "not watched; the program may call greenpg.watch()");
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
  for (const pool of data.pools) {
    if (pool.samples) series.set(pool.key, pool.samples);
    else if (fresh && pool.last) {
      series.set(pool.key, [...(series.get(pool.key) || []), pool.last].slice(-data.kept));
    }
  }
  const keys = new Set(data.pools.map((pool) => pool.key));
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
