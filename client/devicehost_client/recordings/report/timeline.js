// The timeline: a lane for each device and vCPU, above it an overview of everything.
//
// Far away a lane shows how many accesses there were in each span of time; near enough it
// shows the events themselves, as far as the page has them.

const OVERVIEW = 36;
const AXIS = 24;
const LANE = 38;
const GROUP = 20;
const LABEL = 150;
const RIGHT = 12;
const NEAR_PX = 5; // a span as wide as this is near enough for events
const CLOSEST_NS = 200;
const [SPAN, READS, WRITES, FAILED, MARKS, BUSY] = [0, 1, 2, 3, 4, 5];

class Timeline {
  /**
   * @param canvas where to draw; it takes the keyboard and the mouse.
   * @param data what the page got.
   * @param onRange called when another range is shown.
   */
  constructor(canvas, tooltip, data, onRange) {
    this.canvas = canvas;
    this.tooltip = tooltip;
    this.onRange = onRange;
    this.width_ns = data.timeline.width_ns;
    this.end = Math.max(data.end_ns, 1000);
    this.begin = 0;
    this.until = this.end;
    this.selection = null;
    this.target = null;
    this.lanes = this.makeLanes(data);
    this.hasAll = data.sample.length === data.events;
    this.times = data.sample.map((each) => each[1]).sort((a, b) => a - b);
    this.found = this.makeFound(data);
    this.overview = this.makeOverview();
    this.listen();
    onColours(() => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
  }

  makeLanes(data) {
    const events = new Map();
    const add = (key, each) => events.has(key) ? events.get(key).push(each) : events.set(key, [each]);
    for (const each of data.sample) {
      const [, , , kind, vcpu, device] = each;
      if (device) add(`device ${device}`, each);
      if (kind === "read" || kind === "write") add(`vcpu ${vcpu}`, each);
    }
    const types = new Map(data.devices.map((device) => [device.id, device.type]));
    let y = OVERVIEW + AXIS;
    let kind = null;
    return data.timeline.lanes.map((lane) => {
      const title = lane.kind !== kind ? { device: "Devices", vcpu: "vCPUs" }[lane.kind] ?? "" : "";
      kind = lane.kind;
      y += title ? GROUP : 0;
      const result = {
        ...lane,
        title,
        y,
        label: lane.kind === "vcpu" ? `vCPU ${lane.name}` : lane.name,
        type: types.get(lane.name) ?? "",
        events: events.get(`${lane.kind} ${lane.name}`) ?? [],
      };
      y += LANE;
      return result;
    });
  }

  /** Where something is to be seen: the places of findings and differences. */
  makeFound(data) {
    const times = new Map(data.sample.map((each) => [each[0], each[1]]));
    const found = data.findings.map((each) => ({ at: each.since_ns, text: `${each.rule}: ${each.what}` }));
    for (const each of data.differences?.kept ?? []) {
      if (times.has(each.event)) found.push({ at: times.get(each.event), text: each.text || `event ${each.event} differs` });
    }
    return found;
  }

  makeOverview() {
    const counts = [];
    for (const lane of this.lanes) {
      if (lane.kind !== "vcpu") continue;
      for (const cell of lane.cells) counts[cell[SPAN]] = (counts[cell[SPAN]] ?? 0) + cell[READS] + cell[WRITES];
    }
    return counts;
  }

  get height() {
    const last = this.lanes.at(-1);
    return (last ? last.y + LANE : OVERVIEW + AXIS) + 4;
  }

  // Places

  get plot() { return Math.max(50, this.canvas.clientWidth - LABEL - RIGHT); }
  x(ns) { return LABEL + (ns - this.begin) / (this.until - this.begin) * this.plot; }
  ns(x) { return this.begin + (x - LABEL) / this.plot * (this.until - this.begin); }
  overviewX(ns) { return LABEL + ns / this.end * this.plot; }

  // What is shown

  show(begin, until) {
    const length = Math.min(Math.max(until - begin, CLOSEST_NS), this.end);
    this.begin = Math.min(Math.max(0, (begin + until - length) / 2), this.end - length);
    this.until = this.begin + length;
    this.draw();
    this.onRange(this.begin, this.until);
  }

  showAll() { this.show(0, this.end); }

  zoom(factor, around = (this.begin + this.until) / 2) {
    this.show(around - (around - this.begin) * factor, around + (this.until - around) * factor);
  }

  pan(part) {
    const by = (this.until - this.begin) * part;
    const begin = Math.min(Math.max(0, this.begin + by), this.end - (this.until - this.begin));
    this.show(begin, begin + this.until - this.begin);
  }

  /** Show a place with a few events before and after it, and mark it. */
  center(ns) {
    this.target = ns;
    const most = Math.min(this.width_ns * this.plot / NEAR_PX, this.end) / 2;
    const at = this.times.findIndex((each) => each >= ns);
    const [before, after] = [this.times[at - 12] ?? -Infinity, this.times[at + 12] ?? Infinity];
    const half = Math.min(most / 2, ns - before, after - ns); // one of them may be far away
    this.show(ns - half, ns + half);
  }

  get isAll() { return this.begin <= 0 && this.until >= this.end; }

  /** How many accesses, and interrupts and the like, are shown; by spans. */
  totals() {
    const first = Math.floor(this.begin / this.width_ns);
    const last = Math.floor(this.until / this.width_ns);
    let accesses = 0;
    let marks = 0;
    for (const lane of this.lanes) {
      for (const cell of lane.cells) {
        if (cell[SPAN] < first || cell[SPAN] > last) continue;
        if (lane.kind === "device") marks += cell[MARKS];
        else accesses += cell[READS] + cell[WRITES];
      }
    }
    return { accesses, marks };
  }

  // Drawing

  draw() {
    const width = this.canvas.clientWidth;
    if (!width) return;
    this.canvas.style.height = `${this.height}px`;
    const context = sharp(this.canvas, width, this.height);
    this.colours = Object.fromEntries(["surface", "raised", "line", "ink", "muted", "accent", "read", "write",
      "failed", "mark", "found", "select"].map((name) => [name, colour(name)]));
    context.font = "12px system-ui, 'DejaVu Sans', sans-serif";
    context.textBaseline = "middle";
    this.drawOverview(context);
    this.drawAxis(context);
    const spanPx = this.width_ns / (this.until - this.begin) * this.plot;
    const most = this.lanes.map((lane) => this.columns(lane, spanPx));
    const highest = Math.max(1, ...most.map((columns) => columns.highest));
    this.lanes.forEach((lane, i) => this.drawLane(context, lane, most[i].bars, highest, spanPx));
    this.drawFound(context);
    this.drawSelection(context);
    this.canvas.dataset.begin = this.begin;
    this.canvas.dataset.until = this.until;
  }

  drawOverview(context) {
    const { line, raised, read, select, accent, muted } = this.colours;
    const bottom = OVERVIEW - 4;
    context.fillStyle = raised;
    context.fillRect(LABEL, 2, this.plot, bottom - 2);
    const highest = Math.log1p(Math.max(1, ...this.overview.filter(Boolean)));
    const wide = Math.max(1, this.width_ns / this.end * this.plot);
    context.fillStyle = read;
    context.globalAlpha = 0.65;
    this.overview.forEach((value, span) => {
      const high = Math.log1p(value) / highest * (bottom - 6);
      context.fillRect(this.overviewX(span * this.width_ns), bottom - high, wide, high);
    });
    context.globalAlpha = 1;
    const [left, right] = [this.overviewX(this.begin), this.overviewX(this.until)];
    if (!this.isAll) {
      context.fillStyle = select;
      context.fillRect(left, 2, Math.max(2, right - left), bottom - 2);
      context.strokeStyle = accent;
      context.strokeRect(left + 0.5, 2.5, Math.max(2, right - left) - 1, bottom - 3);
    }
    context.strokeStyle = line;
    context.strokeRect(LABEL + 0.5, 2.5, this.plot - 1, bottom - 3);
    context.fillStyle = muted;
    context.textAlign = "left";
    context.fillText("Overview", 2, OVERVIEW / 2);
  }

  drawAxis(context) {
    const { line, muted } = this.colours;
    const step = niceStep((this.until - this.begin) / (this.plot / 110));
    context.textAlign = "center";
    for (let at = Math.ceil(this.begin / step) * step; at <= this.until; at += step) {
      const x = Math.round(this.x(at)) + 0.5;
      context.strokeStyle = line;
      context.beginPath();
      context.moveTo(x, OVERVIEW + AXIS - 4);
      context.lineTo(x, this.height);
      context.stroke();
      context.fillStyle = muted;
      const text = axisText(at, step);
      const half = context.measureText(text).width / 2;
      context.fillText(text, Math.min(Math.max(x, LABEL + half), LABEL + this.plot + RIGHT - half), OVERVIEW + 9);
    }
  }

  /** Sum up a lane by the columns of the screen, or by its spans if these are wider. */
  columns(lane, spanPx) {
    const first = Math.floor(this.begin / this.width_ns);
    const last = Math.floor(this.until / this.width_ns);
    const bars = new Map();
    let highest = 0;
    for (const cell of lane.cells) {
      if (cell[SPAN] < first || cell[SPAN] > last) continue;
      const x = this.x(cell[SPAN] * this.width_ns);
      const column = spanPx >= 2 ? x : Math.floor(x / 2) * 2;
      const bar = bars.get(column) ?? { x: column, width: Math.max(2, spanPx), reads: 0, writes: 0, failed: 0, marks: 0 };
      bar.reads += cell[READS];
      bar.writes += cell[WRITES];
      bar.failed += cell[FAILED];
      bar.marks += cell[MARKS];
      bars.set(column, bar);
      highest = Math.max(highest, bar.reads, bar.writes);
    }
    return { bars: [...bars.values()], highest };
  }

  drawLane(context, lane, bars, highest, spanPx) {
    const { ink, muted, line } = this.colours;
    context.textAlign = "left";
    if (lane.title) {
      context.fillStyle = muted;
      context.font = "600 11px system-ui, 'DejaVu Sans', sans-serif";
      context.fillText(lane.title, 2, lane.y - GROUP / 2 + 2);
      context.font = "12px system-ui, 'DejaVu Sans', sans-serif";
    }
    const middle = lane.y + LANE / 2;
    context.fillStyle = ink;
    const shift = lane.type ? -7 : 0;
    context.fillText(fitted(context, lane.label, LABEL - 14), 2, middle + shift);
    if (lane.type) {
      context.fillStyle = muted;
      context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
      context.fillText(fitted(context, lane.type, LABEL - 14), 2, middle + 8);
      context.font = "12px system-ui, 'DejaVu Sans', sans-serif";
    }
    context.strokeStyle = line;
    context.beginPath();
    context.moveTo(LABEL, middle + 0.5);
    context.lineTo(LABEL + this.plot, middle + 0.5);
    context.stroke();
    context.save();
    context.beginPath();
    context.rect(LABEL, lane.y, this.plot, LANE);
    context.clip();
    const isNear = spanPx >= NEAR_PX;
    if (isNear) context.globalAlpha = 0.18;
    // Behind the events only if some of them aren't on the page.
    if (!isNear || !this.hasAll) this.drawBars(context, bars, middle, highest, !isNear);
    context.globalAlpha = 1;
    if (isNear) this.drawEvents(context, lane, middle);
    context.restore();
  }

  drawBars(context, bars, middle, highest, withMarks) {
    const { read, write, failed, mark } = this.colours;
    const scale = (LANE / 2 - 5) / Math.log1p(highest);
    for (const bar of bars) {
      const [up, down] = [Math.log1p(bar.reads) * scale, Math.log1p(bar.writes) * scale];
      context.fillStyle = read;
      context.fillRect(bar.x, middle - up, bar.width, up);
      context.fillStyle = write;
      context.fillRect(bar.x, middle, bar.width, down);
      if (bar.failed) {
        context.fillStyle = failed;
        context.fillRect(bar.x, middle - Math.max(4, up), Math.max(2, bar.width), Math.max(4, up));
      }
    }
    // On top of all bars, or the next would hide half of a mark.
    context.fillStyle = mark;
    for (const bar of withMarks ? bars : []) if (bar.marks) triangle(context, bar.x + bar.width / 2, middle + LANE / 2 - 1, 4);
  }

  drawEvents(context, lane, middle) {
    const { read, write, failed, mark, surface } = this.colours;
    const half = LANE / 2 - 6;
    for (const [, at, took, kind, , , place, , , status] of lane.events) {
      if (at > this.until || at + took < this.begin) continue;
      const x = this.x(at);
      if (kind !== "read" && kind !== "write") {
        context.fillStyle = mark;
        triangle(context, x, middle + LANE / 2 - 1, 5);
        continue;
      }
      const width = Math.max(1.5, this.x(at + took) - x - 0.5);
      const top = kind === "read" ? middle - half : middle;
      context.fillStyle = status ? failed : kind === "read" ? read : write;
      context.fillRect(x, top, width, half);
      if (width > 28) {
        context.fillStyle = surface;
        context.font = "600 10px system-ui, 'DejaVu Sans', sans-serif";
        const left = Math.max(x, LABEL) + 3;
        context.fillText(fitted(context, place, x + width - left - 2), left, top + half / 2 + 0.5);
      }
    }
  }

  drawFound(context) {
    context.fillStyle = this.colours.found;
    for (const { at } of this.found) {
      if (at >= this.begin && at <= this.until) triangle(context, this.x(at), OVERVIEW + AXIS - 6, -4);
    }
  }

  drawSelection(context) {
    if (this.target !== null && this.target >= this.begin && this.target <= this.until) {
      context.fillStyle = this.colours.accent;
      context.fillRect(Math.round(this.x(this.target)) - 1, OVERVIEW + AXIS - 4, 1, this.height);
    }
    if (!this.selection) return;
    const [left, right] = this.selection.map((ns) => this.x(ns)).sort((a, b) => a - b);
    context.fillStyle = this.colours.select;
    context.fillRect(left, OVERVIEW, right - left, this.height - OVERVIEW);
  }

  // Mouse and keyboard

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan(event.deltaX / this.plot);
      else this.zoom(1.0015 ** event.deltaY, this.ns(Math.max(LABEL, event.offsetX)));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("dblclick", () => this.showAll());
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => { this.tooltip.hidden = true; });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  press(event) {
    if (event.button) return;
    this.tooltip.hidden = true;
    const canvas = this.canvas;
    const start = event.offsetX;
    const [begin, until] = [this.begin, this.until];
    const inOverview = event.offsetY < OVERVIEW;
    const length = until - begin;
    const overviewNs = (x) => (x - LABEL) / this.plot * this.end;
    const move = (now) => {
      if (inOverview) {
        const at = overviewNs(now.offsetX);
        this.show(at - length / 2, at + length / 2);
      } else if (event.shiftKey) {
        const by = (start - now.offsetX) / this.plot * length;
        const first = Math.min(Math.max(0, begin + by), this.end - length);
        this.show(first, first + length);
      } else {
        this.selection = [this.ns(start), this.ns(now.offsetX)];
        this.draw();
      }
    };
    const release = () => {
      canvas.removeEventListener("pointermove", move);
      const selection = this.selection?.sort((a, b) => a - b);
      this.selection = null;
      if (selection && this.x(selection[1]) - this.x(selection[0]) > 4) this.show(...selection);
      else this.draw();
    };
    canvas.setPointerCapture(event.pointerId);
    canvas.addEventListener("pointermove", move);
    canvas.addEventListener("pointerup", release, { once: true });
    if (inOverview && !this.isAll) move(event);
  }

  key(event) {
    const actions = {
      "+": () => this.zoom(0.5),
      "=": () => this.zoom(0.5),
      "-": () => this.zoom(2),
      "0": () => this.showAll(),
      Home: () => this.pan(-1e9),
      End: () => this.pan(1e9),
      ArrowLeft: () => this.pan(-0.2),
      ArrowRight: () => this.pan(0.2),
    };
    if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  }

  hover(event) {
    if (event.buttons) return;
    const text = this.textAt(event.offsetX, event.offsetY);
    this.tooltip.hidden = !text;
    if (!text) return;
    this.tooltip.textContent = text;
    const left = Math.min(event.offsetX + 14, this.canvas.clientWidth - this.tooltip.offsetWidth - 4);
    this.tooltip.style.left = `${Math.max(0, left)}px`;
    this.tooltip.style.top = `${event.offsetY + 16}px`;
  }

  /** What is at a place of the canvas, in words. */
  textAt(x, y) {
    if (x < LABEL || y < OVERVIEW) return "";
    if (y < OVERVIEW + AXIS) {
      return this.found.filter(({ at }) => Math.abs(this.x(at) - x) < 5).slice(0, 4).map(({ text }) => text).join("\n");
    }
    const lane = this.lanes.find((each) => y >= each.y && y < each.y + LANE);
    if (!lane) return "";
    const spanPx = this.width_ns / (this.until - this.begin) * this.plot;
    if (spanPx >= NEAR_PX) {
      const near = lane.events.find(([, at, took]) => x >= this.x(at) - 2 && x <= this.x(at + took) + 2);
      if (near) return eventText(near);
    }
    const bar = this.columns(lane, spanPx).bars.find((each) => x >= each.x && x < each.x + each.width);
    if (!bar) return "";
    const parts = [counted(bar.reads, "read"), counted(bar.writes, "write")];
    if (bar.failed) parts.push(`${count(bar.failed)} failed`);
    if (bar.marks) parts.push(counted(bar.marks, "interrupt or DMA access").replace("accesss", "accesses"));
    return `${lane.label} at ${moment(this.ns(bar.x))}\n${parts.join(", ")}`;
  }
}
