// The table of events with its filter, and the smaller tables.

const ROWS = 250; // added to the table at a time

class EventsTable {
  /**
   * @param data what the page got.
   * @param onPick called with an event whose number is clicked.
   * @param range returns the range of the timeline.
   */
  constructor(data, onPick, range) {
    this.events = data.sample;
    this.total = data.events;
    this.onPick = onPick;
    this.range = range;
    this.texts = this.events.map(([number, , , kind, vcpu, device, place, text, decoded, status]) =>
      `${number} ${kind} ${vcpu && `vcpu ${vcpu}`} ${device}.${place} ${text} ${decoded} ${status}`.toLowerCase());
    this.target = null;
    this.body = el("tbody");
    const columns = [
      ["event", "number"], ["time", "number"], ["took", "number"], ["vCPU", "number"],
      ["device", ""], ["what", ""], ["meaning", ""],
    ];
    byId("events-table").append(el("table", { "aria-label": "Events" },
      el("thead", {}, el("tr", {}, ...columns.map(([text, className]) => el("th", { scope: "col", class: className, text })))),
      this.body));
    this.options("kind", [...new Set(this.events.map((each) => each[3]))]);
    this.options("device", [...new Set(this.events.map((each) => each[5]))].filter(Boolean));
    const update = () => { this.target = null; this.update(); };
    byId("search").addEventListener("input", update);
    for (const id of ["kind", "device", "in-view"]) byId(id).addEventListener("change", update);
    byId("filter").addEventListener("submit", (event) => event.preventDefault());
    byId("clear").addEventListener("click", () => { this.clear(); update(); });
    byId("more").addEventListener("click", () => this.addRows());
    this.update();
  }

  options(id, names) {
    byId(id).append(el("option", { value: "", text: "all" }), ...names.sort().map((each) => el("option", { value: each, text: each })));
  }

  /** Show what the filter lets through, from the first, or from around `target`. */
  update() {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [kind, device] = [byId("kind").value, byId("device").value];
    const [begin, until] = byId("in-view").checked ? this.range() : [-Infinity, Infinity];
    this.isFiltered = Boolean(words.length || kind || device || byId("in-view").checked);
    this.matches = this.events.filter((each, i) =>
      (!kind || each[3] === kind) && (!device || each[5] === device) &&
      each[1] <= until && each[1] + each[2] >= begin && words.every((word) => this.texts[i].includes(word)));
    this.shown = 0;
    if (this.target !== null) {
      const at = this.matches.findIndex((each) => each[0] === this.target);
      this.shown = Math.max(0, at - 20);
    }
    this.body.replaceChildren();
    this.addRows();
    const all = this.events.length === this.total ? "" : `, of ${count(this.total)} in the recording`;
    byId("events-count").textContent = `${count(this.matches.length)} of ${counted(this.events.length, "event")} on this page${all}`;
  }

  addRows() {
    const next = this.matches.slice(this.shown, this.shown + ROWS);
    let before = this.matches[this.shown - 1]?.[0] ?? (this.target === null ? -1 : next[0]?.[0] - 1);
    for (const each of next) {
      const missing = each[0] - before - 1;
      if (missing > 0 && !this.isFiltered) {
        this.body.append(row([{ text: `${counted(missing, "event")} not on this page`, colspan: 7 }], { class: "gap" }));
      }
      this.body.append(this.line(each));
      before = each[0];
    }
    this.shown += next.length;
    byId("more").hidden = this.shown >= this.matches.length;
  }

  line(event) {
    const [number, at, took, , vcpu, device, place, text, decoded, status] = event;
    const pick = el("button", { type: "button", class: "link", text: count(number), title: "Show it in the timeline", on: { click: () => this.onPick(event) } });
    return row([
      { node: pick, class: "number" },
      { text: moment(at), class: "number" },
      { text: took ? time(took) : "", class: "number" },
      { text: vcpu, class: "number" },
      { text: device, class: "nowrap", title: place },
      { text, class: status ? "code failure" : "code" },
      { text: decoded, class: "code" },
    ], number === this.target ? { class: "target" } : {});
  }

  /** Show an event among its neighbours, if the page has it. */
  go(number) {
    const event = this.events.find((each) => each[0] === number);
    if (!event) return null;
    this.clear();
    this.target = number;
    this.update();
    this.body.querySelector(".target")?.scrollIntoView({ block: "center" });
    return event;
  }

  clear() {
    for (const id of ["search", "kind", "device"]) byId(id).value = "";
    byId("in-view").checked = false;
  }

  /** Show the events of a register. */
  search(text, device) {
    this.clear();
    byId("search").value = text;
    byId("device").value = device;
    this.target = null;
    this.update();
    byId("events").scrollIntoView();
  }
}

/** A number of an event that one can go to. */
function eventLink(number, onGo) {
  return el("button", { type: "button", class: "link", text: `event ${count(number)}`, on: { click: () => onGo(number) } });
}

function latencyTable(latency) {
  const rows = [["all", latency.all], ...Object.entries(latency.devices).sort((a, b) => b[1].count - a[1].count)];
  const lines = rows.map(([name, each]) => row([
    { text: name || "no device", class: "nowrap" },
    ...[count(each.count), time(each.p50_ns), time(each.p99_ns), time(each.max_ns), time(each.total_ns)]
      .map((text) => ({ text, class: "number" })),
  ]));
  return table([{ name: "device" }, ...["accesses", "p50", "p99", "max", "in all"].map((name) => ({ name, class: "number" }))], lines, "Latency");
}

function slowestTable(events, onGo) {
  const lines = events.map(([number, at, took, , vcpu, device, , text, decoded, status]) => row([
    { text: time(took), class: "number" },
    { text: moment(at), class: "number" },
    { node: eventLink(number, onGo), class: "nowrap" },
    { text: vcpu, class: "number" },
    { text: device, class: "nowrap" },
    { text, class: status ? "code failure" : "code" },
    { text: decoded, class: "code" },
  ]));
  const columns = [{ name: "took", class: "number" }, { name: "time", class: "number" }, { name: "event" }, { name: "vCPU", class: "number" }, { name: "device" }, { name: "what" }, { name: "meaning" }];
  return table(columns, lines, "Slowest accesses");
}

function devicesTable(devices) {
  const lines = devices.map((device) => row([
    { text: device.id },
    { text: device.type },
    { text: device.ranges.join("\n"), class: "code" },
    { text: Object.entries(device.config).map(([key, value]) => `${key}=${value}`).join(" ") || "–", class: "code" },
    { text: device.has_registers ? "yes" : "no" },
  ]));
  return table(["device", "type", "ranges", "configuration", "registers"].map((name) => ({ name })), lines, "Devices");
}

function differencesTable(differences, onGo) {
  const lines = differences.kept.map((each) => row([
    { node: eventLink(each.event, onGo), class: "nowrap" },
    { text: [each.device, each.register].filter(Boolean).join("."), class: "code" },
    { text: each.what },
    { text: each.expected, class: "code" },
    { text: each.got, class: "code failure" },
    { text: each.text },
  ]));
  return table(["where", "register", "what", "expected", "got", ""].map((name) => ({ name })), lines, "Differences");
}

function findingItem(finding, onGo) {
  const target = [finding.device, finding.register].filter(Boolean).join(".");
  const cost = finding.cost_ns === null ? "" : `, ${time(finding.cost_ns)}`;
  const first = el("div", { class: "first" }, "first: ", eventLink(finding.event, onGo), ` at ${moment(finding.since_ns)}: `,
    el("span", { class: "code", text: [finding.access, finding.decoded].filter(Boolean).join(" → ") }));
  return el("li", { class: finding.severity },
    el("span", { class: "badge", text: finding.severity }),
    el("span", { class: "what" }, ...(target ? [el("span", { class: "code", text: target }), ": "] : []), `${finding.what} `, el("span", { class: "rule", text: finding.rule })),
    el("span", { class: "count", text: `${count(finding.count)}×${cost}` }),
    first);
}
