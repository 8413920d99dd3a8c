// The heat map of registers, and the histogram of latencies.

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

/** The registers by device: how often, how long, when. Calls `onPick` with one of them. */
function registersTable(registers, onPick) {
  const rows = registers.rows;
  const most = Math.log1p(Math.max(1, ...rows.flatMap((each) => [each.reads, each.writes])));
  const hottest = Math.log1p(Math.max(1, ...rows.flatMap((each) => each.strip)));
  const used = Math.max(1, ...rows.map((each) => each.strip.findLastIndex(Boolean) + 1));
  const byDevice = Map.groupBy(rows, (each) => each.device);
  const lines = [];
  for (const [device, own] of byDevice) {
    const group = row([{ text: device || "no device", colspan: 6 }], { class: "group" });
    lines.push(group);
    for (const each of own) {
      const name = el("button", { type: "button", class: "link code", text: each.name, title: "Show its events", on: { click: () => onPick(each) } });
      const strip = el("canvas", { role: "img", "aria-label": `accesses of ${each.name} over time` });
      lines.push(row([
        name,
        heat(each.reads, most, "read"),
        heat(each.writes, most, "write"),
        { text: time(each.p50_ns), class: "number" },
        { text: time(each.max_ns), class: each.failed ? "number failure" : "number" },
        { node: strip, class: "strip" },
      ]));
      onColours(() => drawStrip(strip, each.strip.slice(0, used), hottest));
    }
  }
  return table([
    { name: "register" }, { name: "reads", class: "number" }, { name: "writes", class: "number" },
    { name: "p50", class: "number" }, { name: "max", class: "number" }, { name: "over time" },
  ], lines, "Registers");
}

/** A cell that is the warmer the larger its count is. */
function heat(value, most, kind) {
  const cell = el("span", { text: value ? count(value) : "" });
  const share = Math.round(Math.log1p(value) / most * 45);
  const result = { node: cell, class: "number heat" };
  queueMicrotask(() => {
    if (value) cell.parentElement.style.backgroundColor = `color-mix(in srgb, var(--${kind}) ${share}%, transparent)`;
  });
  return result;
}

function drawStrip(canvas, counts, hottest) {
  canvas.width = counts.length;
  canvas.height = 1;
  const context = canvas.getContext("2d");
  const rgb = colour("heat").split(" ").join(", ");
  counts.forEach((value, i) => {
    const share = value ? 0.15 + 0.85 * Math.log1p(value) / hottest : 0.05;
    context.fillStyle = `rgba(${rgb}, ${share})`;
    context.fillRect(i, 0, 1, 1);
  });
  canvas.style.imageRendering = "pixelated";
}

/** How long accesses took: both axes are logarithmic. */
function histogram(latency) {
  const [width, height, left, right, top, bottom] = [520, 190, 40, 14, 20, 24];
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const buckets = latency.histogram;
  if (!buckets.length) return picture;
  const [least, most] = [Math.max(1, buckets[0][0]), buckets.at(-1)[1]];
  const highest = Math.max(...buckets.map(([, , each]) => each));
  const decades = Math.log(most / least) || 1;
  const x = (ns) => left + Math.log(Math.max(1, ns) / least) / decades * (width - left - right);
  const y = (value) => height - bottom - Math.log1p(value) / Math.log1p(highest) * (height - top - bottom);
  const { p50_ns: p50, p99_ns: p99, max_ns: max } = latency.all;
  picture.setAttribute("aria-label", `Half of the accesses took at most ${time(p50)}, 99 percent ${time(p99)}, the longest ${time(max)}`);
  for (let value = 1; value <= highest; value *= 10) {
    picture.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    picture.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, shortCount(value)));
  }
  for (const [low, high, value] of buckets) {
    const bar = svg("rect", { class: "bucket", x: x(low) + 0.5, y: y(value), width: Math.max(1, x(high) - x(low) - 1), height: height - bottom - y(value) });
    bar.append(svg("title", {}, `${time(low)} to ${time(high)}: ${count(value)}`));
    picture.append(bar);
  }
  picture.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  for (const tick of ticks(least, most)) {
    picture.append(svg("text", { x: x(tick), y: height - 8, "text-anchor": "middle" }, time(tick)));
  }
  let free = -Infinity;
  for (const [name, value] of [["p50", p50], ["p99", p99], ["max", max]]) {
    const at = x(value);
    picture.append(svg("line", { class: "percentile", x1: at, x2: at, y1: top - 4, y2: height - bottom }));
    const text = `${name} ${time(value)}`;
    const half = text.length * 3.6;
    const place = Math.min(Math.max(at, free + half, left + half), width - half);
    free = place + half + 10;
    picture.append(svg("text", { class: "label", x: place, y: 11, "text-anchor": "middle" }, text));
  }
  return picture;
}

/** Powers of ten, and what is between them if these are few. */
function ticks(least, most) {
  const found = [];
  const steps = most / least > 1000 ? [1] : most / least > 20 ? [1, 3] : [1, 2, 5];
  for (let power = 10 ** Math.floor(Math.log10(least)); power <= most; power *= 10) {
    for (const step of steps) if (step * power >= least && step * power <= most) found.push(step * power);
  }
  return found;
}

const shortCount = (value) => value >= 1e6 ? `${value / 1e6} M` : value >= 1e3 ? `${value / 1e3} k` : String(value);
