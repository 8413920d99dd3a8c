// What drawing on a canvas needs.

/** Give a canvas as many pixels as it has on the screen; return its context, scaled. */
function sharp(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

function triangle(context, x, y, size) {
  context.beginPath();
  context.moveTo(x, y - size * 1.6);
  context.lineTo(x + size, y);
  context.lineTo(x - size, y);
  context.fill();
}

/** The next of 1, 2, 5, 10, 20, … that is at least `least`. */
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= least);
}

function axisText(ns, step) {
  if (!ns) return "0";
  const [unit, size] = [["s", 1e9], ["ms", 1e6], ["µs", 1e3], ["ns", 1]].find(([, each]) => step * 100 >= each && ns >= each || each === 1);
  const digits = Math.max(0, Math.ceil(Math.log10(size / step) - 1e-9));
  return `${(ns / size).toFixed(digits)} ${unit}`;
}

/** As much of a text as there is room for. */
function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 0 && context.measureText(`${text.slice(0, length)}…`).width > width) length -= 1;
  return length ? `${text.slice(0, length)}…` : "";
}
