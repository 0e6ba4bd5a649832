
// A live view: figures, events per second, a histogram or a heatmap, the last rows.
// Each message is a whole frame: a few words, and one buffer of numbers (history.py, Frame.pack).

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
// Okabe and Ito's blues: the darker one is hardly seen on black.
const blue = () => (document.body.dataset.jpThemeLight === "false" ? "#56b4e9" : "#0072b2");
const ORANGE = "#d55e00";
const RATE_HEIGHT = 150, PICTURE_HEIGHT = 210, LEFT = 84, BOTTOM = 28;
const SEEN_EVERY_MS = 5000;

const make = (parent, tag, kind = "") => {
  const node = parent.appendChild(document.createElement(tag));
  node.className = kind;
  return node;
};

const NOTHING = { runs: false, rate: 0, events: 0, lost: null, said: "", window: 30, picture: "",
  of: "", ends: [], events_per_s: [], lost_per_s: [], counts: [], buckets: 0, labels: [],
  columns: [], rows: [] };

function unpack(words, buffer) {
  const bytes = buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength);
  const n = words.points, series = new Float64Array(bytes, 0, 3 * n);
  const part = (i) => Array.from(series.subarray(i * n, (i + 1) * n));
  return { ...words, ends: part(0), events_per_s: part(1), lost_per_s: part(2),
           counts: new Float32Array(bytes, 24 * n), buckets: words.labels.length - 1 };
}

function totals(frame) {
  const found = new Array(frame.buckets).fill(0);
  frame.counts.forEach((count, i) => { found[i % frame.buckets] += count; });
  return found;
}

// Of a status only news is told, not each frame of it.
const tell = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const describe = (node, text) => {
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", text);
};
const range = ({ events_per_s: [first = 0, ...others] }) =>
  [Math.min, Math.max].map((pick) => number.format(others.reduce((a, b) => pick(a, b), first)))
    .join(" to ");

function fullest(frame) {
  const counts = totals(frame), most = counts.reduce((a, b) => Math.max(a, b), 0);
  const at = counts.indexOf(most);
  return `the most, ${number.format(most)}, from ${frame.labels[at]} to ${frame.labels[at + 1]}`;
}

// As many edges as fit, one label each `room` pixels.
const splits = (count, pixels, room) => {
  const step = Math.max(1, Math.ceil((count * room) / Math.max(pixels, 1)));
  return Array.from({ length: Math.floor((count - 1) / step) + 1 }, (_, i) => i * step);
};

class Picture {
  constructor(el, key) {
    this.el = el;
    el.classList.add("ebpflab-live");
    el.dataset.key = key;
    const figures = make(el, "div", "figures");
    el.setAttribute("role", "group");
    el.setAttribute("aria-label", "live view");
    this.state = make(figures, "span", "state");
    this.state.setAttribute("role", "status");
    this.rate = make(make(figures, "span"), "b");
    make(this.rate.parentNode, "span").textContent = " events per second";
    this.events = make(figures, "span");
    this.lost = make(figures, "span", "lost");
    this.said = make(el, "div", "said");
    this.said.setAttribute("role", "alert");
    this.over = make(el, "div");
    this.rates = this.chart(this.over, RATE_HEIGHT, this.rateOptions());
    this.title = make(el, "div", "title");
    this.bars = make(el, "div");
    this.histogram = this.chart(this.bars, PICTURE_HEIGHT, this.barOptions());
    this.heat = make(el, "canvas", "heat");
    const rows = make(el, "div", "rows");
    Object.assign(rows, { tabIndex: 0, role: "region", ariaLabel: "the last rows" });  // it scrolls
    this.rows = make(rows, "table");
    this.resizing = new ResizeObserver(() => this.resize());
    this.resizing.observe(el);
    this.theming = new MutationObserver(() => this.draw(this.frame));
    this.theming.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name"] });
  }

  colour(name, otherwise) {
    return getComputedStyle(this.el).getPropertyValue(name).trim() || otherwise;
  }
  ink = () => this.colour("--jp-ui-font-color1", "#202020");
  faint = () => this.colour("--jp-border-color2", "#d8d8d8");
  axis(more) {
    const grid = { stroke: this.faint, width: 1 };
    return { stroke: this.ink, grid, ticks: grid, font: "12px sans-serif", ...more };
  }
  counted = (size) => this.axis({ size, values: (_, at) => at.map((each) => number.format(each)) });

  rateOptions() {
    return {
      scales: { x: { time: false, range: () => [-(this.frame?.window ?? 30), 0] },
                y: { range: (_, low, high) => [0, Math.max(high, 1) * 1.1] } },
      series: [{}, { stroke: blue, fill: () => blue() + "30", width: 1.5, points: { show: false } },
               { stroke: ORANGE, fill: ORANGE + "60", width: 1.5, points: { show: false } }],
      axes: [this.axis({ size: BOTTOM, values: (_, at) => at.map((s) => (s ? `${s} s` : "now")) }),
             this.counted(LEFT)],
    };
  }
  barOptions() {
    const names = (_, at) => at.map((i) => this.frame?.labels[i] ?? "");
    const at = (plot) => splits(this.frame?.labels.length ?? 1, plot.bbox.width / devicePixelRatio, 62);
    return {
      scales: { x: { time: false, range: () => [0, Math.max(this.frame?.buckets ?? 1, 1)] },
                y: { range: (_, low, high) => [0, Math.max(high, 1) * 1.1] } },
      series: [{}, { stroke: blue, fill: blue, width: 0, points: { show: false },
                     paths: uPlot.paths.bars({ size: [0.94, 90], align: 1, gap: 1 }) }],
      axes: [this.axis({ size: BOTTOM, splits: at, values: names }), this.counted(LEFT)],
    };
  }
  chart(parent, height, options) {
    const fixed = { width: 600, height, legend: { show: false }, cursor: { show: false } };
    return new uPlot({ ...fixed, ...options }, options.series.map(() => []), parent);
  }

  resize() {
    const width = Math.floor(this.el.clientWidth) - 4;
    if (width < 50 || width === this.width) return;
    this.width = width;
    this.rates.setSize({ width, height: RATE_HEIGHT });
    this.histogram.setSize({ width, height: PICTURE_HEIGHT });
    this.draw(this.frame);
  }

  draw(frame) {
    this.frame = frame;
    if (!frame) return;
    tell(this.state, frame.runs ? "attached" : "stopped, nothing attached");
    this.state.classList.toggle("runs", frame.runs);
    this.rate.textContent = number.format(frame.rate);
    this.events.textContent = `${number.format(frame.events)} events in all`;
    this.lost.textContent =
      frame.lost === null ? "counted in the kernel" : `${number.format(frame.lost)} lost`;
    this.lost.classList.toggle("some", frame.lost > 0);
    tell(this.said, frame.said);
    const lost = frame.lost_per_s.map((each) => each || null);  // no line where nothing is lost
    this.rates.setData([frame.ends, frame.events_per_s, lost]);
    const heat = frame.picture === "heatmap", some = frame.buckets > 0;
    this.title.textContent = some ? `${frame.of} in the last ${frame.window} seconds` : "";
    this.bars.hidden = heat || !some;
    this.heat.hidden = !heat || !some;
    this.heat.style.display = this.heat.hidden ? "none" : "block";
    if (some && heat) this.drawHeat(frame);
    else if (some) this.histogram.setData([[...totals(frame).keys()], totals(frame)]);
    describe(this.over, `events per second in the last ${frame.window} seconds: ${range(frame)}`);
    const what = `${frame.picture} of ${this.title.textContent}`;
    if (some) describe(heat ? this.heat : this.bars, `${what}: ${fullest(frame)}`);
    this.drawRows(frame);
  }

  drawHeat(frame) {
    const ratio = devicePixelRatio, width = this.width ?? 600, { buckets, labels, ends } = frame;
    Object.assign(this.heat, { width: width * ratio, height: PICTURE_HEIGHT * ratio });
    Object.assign(this.heat.style, { width: `${width}px`, height: `${PICTURE_HEIGHT}px` });
    const pen = this.heat.getContext("2d");
    pen.scale(ratio, ratio);
    const left = this.rates.bbox.left / ratio, wide = this.rates.bbox.width / ratio;
    const high = PICTURE_HEIGHT - BOTTOM - 8, tall = high / buckets;
    const x = (s) => left + wide * (1 + s / frame.window), y = (bucket) => 8 + high - bucket * tall;
    const most = Math.log1p(frame.counts.reduce((a, b) => Math.max(a, b), 1));
    pen.fillStyle = blue();
    ends.forEach((end, i) => {
      const from = Math.max(x(i ? ends[i - 1] : end - 0.1), left);
      for (let bucket = 0; bucket < buckets; bucket++) {
        const count = frame.counts[i * buckets + bucket];
        if (!count) continue;
        pen.globalAlpha = 0.2 + (0.8 * Math.log1p(count)) / most;
        pen.fillRect(from, y(bucket + 1), x(end) - from + 0.4, tall);
      }
    });
    Object.assign(pen, { globalAlpha: 1, fillStyle: this.ink(), strokeStyle: this.faint() });
    Object.assign(pen, { font: "12px sans-serif", textBaseline: "middle", textAlign: "right" });
    pen.strokeRect(left, 8, wide, high);
    for (const i of splits(labels.length, high, 18)) pen.fillText(labels[i], left - 8, y(i));
    pen.textAlign = "center";
    const parts = wide < 300 ? 2 : 5;
    for (let part = 0; part <= parts; part++) {
      const s = (-frame.window * part) / parts;
      pen.fillText(part ? `${s} s` : "now", x(s), PICTURE_HEIGHT - BOTTOM / 2);
    }
  }

  drawRows(frame) {
    const lines = frame.rows.length ? [frame.columns, ...frame.rows] : [];
    this.rows.parentNode.hidden = !lines.length;
    this.rows.replaceChildren(...lines.map((cells, line) => {
      const row = document.createElement("tr");
      for (const text of cells) make(row, line ? "td" : "th").textContent = text;
      if (!line) for (const head of row.cells) head.scope = "col";
      return row;
    }));
  }

  remove() {
    this.resizing.disconnect();
    this.theming.disconnect();
    this.rates.destroy();
    this.histogram.destroy();
  }
}

export default () => {
  const pictures = new Set();
  let frame = null, said = 0, due = 0;
  const say = (model, what) => {
    said = Date.now();
    try { model.send({ say: what }); } catch { /* the kernel has gone */ }
  };
  return {
    initialize({ model }) {
      model.on("msg:custom", (words, buffers) => {
        // What went wrong comes without a picture, and leaves the last one.
        frame = buffers.length ? unpack(words, buffers[0]) : { ...(frame ?? NOTHING), ...words };
        if (pictures.size && Date.now() - said > SEEN_EVERY_MS) say(model, "seen");
        // Of several that came at once, the newest is drawn.
        due ||= requestAnimationFrame(() => { due = 0; pictures.forEach((each) => each.draw(frame)); });
      });
    },
    render({ model, el }) {
      const picture = new Picture(el, model.get("key"));
      pictures.add(picture);
      say(model, "here");
      if (frame) picture.draw(frame);
      return () => {
        pictures.delete(picture);
        picture.remove();
        if (!pictures.size) say(model, "gone");
      };
    },
  };
};
