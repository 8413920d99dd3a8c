// All parts together.

/** Unpack what the page got: base64 of zlib of JSON. */
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function showHeader(data) {
  byId("name").textContent = data.name;
  const facts = [
    data.started && `recorded ${data.started.replace("T", " ").replace(/\.\d+/, "")}`,
    data.version && `by devicehost ${data.version}`,
    `${counted(data.devices.length, "device")}`,
  ];
  byId("facts").textContent = facts.filter(Boolean).join(" · ");
  byId("note").textContent = data.note;
  const sections = [...document.querySelectorAll("section[data-title]:not([hidden])")];
  byId("contents").append(...sections.map((each) => el("a", { href: `#${each.id}`, text: each.dataset.title })));
}

function showAlerts(data) {
  const alert = (level, text) => byId("alerts").append(el("p", { class: `alert ${level}`, role: "alert", text }));
  if (data.damage !== null) alert("error", `The recording is damaged: ${data.damage}. What is shown is what could be read.`);
  if (data.lost) alert("warning", `${counted(data.lost, "event")} missing in the recording: counts are too low, and findings may be wrong behind the gaps.`);
}

function showTiles(data) {
  const errors = data.findings.filter((each) => each.severity === "error").length;
  const kinds = data.kinds;
  const tiles = [
    ["events", count(data.events)],
    ["duration", time(data.end_ns)],
    ["reads", count(data.reads)],
    ["writes", count(data.writes)],
    ["interrupts", count(kinds.interrupt ?? 0)],
    ["in devices", time(data.busy_ns)],
    ["failed", count(data.failed), data.failed],
    ["lint errors", count(errors), errors],
  ];
  if (kinds.dma) tiles.splice(5, 0, ["DMA", count(kinds.dma)]);
  if (data.differences) tiles.push(["differences", count(data.differences.count), data.differences.count]);
  byId("tiles").append(...tiles.map(([name, text, isBad]) =>
    el("div", isBad ? { class: "bad" } : {}, el("dt", { text: name }), el("dd", { text }))));
}

function showAll(data) {
  const timeline = new Timeline(byId("lanes"), byId("tooltip"), data, (begin, until) => {
    showRange(timeline);
    if (byId("in-view").checked) events.update();
  });
  const events = new EventsTable(data, ([, at]) => {
    timeline.center(at);
    byId("timeline").scrollIntoView();
  }, () => [timeline.begin, timeline.until]);
  const go = (number) => {
    const event = events.go(number);
    const place = event?.[1] ?? data.findings.find((each) => each.event === number)?.since_ns ?? data.slowest.find((each) => each[0] === number)?.[1];
    if (place !== undefined) timeline.center(place);
    if (!event) byId("timeline").scrollIntoView();
  };
  showRange(timeline);
  byId("zoom-in").addEventListener("click", () => timeline.zoom(0.5));
  byId("zoom-out").addEventListener("click", () => timeline.zoom(2));
  byId("zoom-all").addEventListener("click", () => timeline.showAll());

  const { rows, omitted } = data.registers;
  byId("registers-count").textContent = `${count(rows.length)} accessed${omitted ? `; ${count(omitted)} accesses to others` : ""}`;
  byId("registers-table").append(registersTable(data.registers, (each) => events.search(each.name, each.device)));
  byId("histogram").append(histogram(data.latency));
  byId("latency-table").append(latencyTable(data.latency));
  byId("devices-table").append(devicesTable(data.devices));
  byId("slowest-table").append(slowestTable(data.slowest, go));
  const more = data.findings_count - data.findings.length;
  byId("findings-count").textContent = data.findings_count ? `${count(data.findings_count)}, as devicehostctl lint tells them` : "none";
  byId("findings-list").append(...data.findings.map((each) => findingItem(each, go)));
  if (more) byId("findings").append(el("p", { class: "muted", text: `${count(more)} more are not shown` }));
  if (data.differences) {
    byId("differences-count").textContent = `${count(data.differences.count)}, ${count(data.differences.kept.length)} shown`;
    byId("differences-table").append(differencesTable(data.differences, go));
  }
}

function showRange(timeline) {
  const { accesses, marks } = timeline.totals();
  const length = time(timeline.until - timeline.begin);
  byId("range").textContent = `${moment(timeline.begin)} to ${moment(timeline.until)} (${length}): ${counted(accesses, "access").replace("accesss", "accesses")}, ${count(marks)} interrupts and DMA`;
  byId("lanes").setAttribute("aria-label", `Timeline. ${byId("range").textContent}`);
}

async function main() {
  if (!("DecompressionStream" in window)) throw new Error("this browser is too old: it has no DecompressionStream");
  const data = await unpack(byId("data").textContent);
  byId("differences").hidden = !data.differences;
  showHeader(data);
  showAlerts(data);
  showTiles(data);
  showAll(data);
  document.documentElement.dataset.ready = "yes";
}

main().catch((error) => {
  byId("alerts").append(el("p", { class: "alert error", role: "alert", text: `The page can't be shown: ${error.message}` }));
  throw error;
});
