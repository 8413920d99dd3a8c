"use strict";

// Elements and words. All text gets into the page as text, never as markup.

/** Make an element. `attributes` may have `class`, `text`, `on` (listeners by event). */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name === "on") for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const byId = (id) => document.getElementById(id);

const numbers = new Intl.NumberFormat("en-US");

/** A count: 1,234. */
const count = (value) => numbers.format(value);

/** A count and what is counted: "1 event", "1,234 events". */
const counted = (value, what) => `${count(value)} ${what}${value === 1 ? "" : "s"}`;

/** A time in nanoseconds, with three digits and a unit. */
function time(ns) {
  let value = ns;
  for (const unit of ["ns", "µs", "ms"]) {
    if (Math.abs(value) < 999.5) return `${shortest(value, unit === "ns" ? 0 : 3)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(3)} s`;
}

function shortest(value, digits) {
  const whole = Math.max(1, Math.floor(Math.log10(Math.abs(value) || 1)) + 1);
  return value.toFixed(Math.max(0, Math.min(digits, 3) - whole));
}

/** A place in the recording: as exact as it is known. */
const moment = (ns) => `${(ns / 1e9).toFixed(6)} s`;

/** A colour of the style sheet. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Call `listener` now, and whenever the browser changes between light and dark. */
function onColours(listener) {
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", listener);
  listener();
}

/** Make a table. A cell is a text, an element, or {text, class, title}. */
function table(columns, rows, caption) {
  const head = el("tr", {}, ...columns.map((column) =>
    el("th", { scope: "col", class: column.class ?? "", text: column.name })));
  return el("table", { "aria-label": caption }, el("thead", {}, head), el("tbody", {}, ...rows));
}

function row(cells, attributes = {}) {
  return el("tr", attributes, ...cells.map((each) => {
    if (each instanceof Node) return el("td", {}, each);
    const { text, node, ...rest } = typeof each === "object" ? each : { text: each };
    const cell = el("td", rest, ...(node ? [node] : []));
    if (text !== undefined) cell.append(String(text));
    return cell;
  }));
}

/** An event in words, on a few lines. */
function eventText([number, at, took, , vcpu, device, , text, decoded]) {
  const who = [device, vcpu && `vCPU ${vcpu}`].filter(Boolean).join(", ");
  const when = took ? `${moment(at)}, took ${time(took)}` : moment(at);
  return [`Event ${number}: ${text}`, decoded, who, when].filter(Boolean).join("\n");
}
