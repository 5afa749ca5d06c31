// The panel "What the model got": positions of the context, what the encoders saw and heard, and times.

import { element, seconds } from "./dom.js";

const KINDS = { text: "text", image: "picture", audio: "sound" };
const SIDE = 240; // CSS pixels of a picture's square

/**
 * Make the panel.
 *
 * @param details the server's `muomni` object of the first chunk.
 * @param written tokens of the answer, or null.
 * @param times rows of name, the server's and the browser's value, as text.
 */
export function gotPanel(details, written, times, seed) {
  const brief = Object.entries(KINDS)
    .filter(([kind]) => details.positions[kind])
    .map(([kind, name]) => `${details.positions[kind]} ${name}`)
    .join(", ");
  return element(
    "details",
    { className: "got", ontoggle: ({ target }) => target.open && target.scrollIntoView({ block: "nearest" }) },
    element("summary", {}, "What the model got", element("span", { className: "brief" }, brief)),
    ...context(details, written),
    cuts(details),
    element("div", { className: "inputs" }, ...details.inputs.map(input)),
    timesTable(times),
    element("p", { className: "seed" }, `Seed ${seed}`),
  );
}

function context(details, written) {
  const parts = Object.entries(KINDS).map(([kind, name]) => [kind, name, details.positions[kind]]);
  const answer = Math.min(written ?? 0, details.answer);
  parts.push(["answer", "answer", answer], ["free", "left for an answer", details.answer - answer]);
  const shown = parts.filter(([, , count]) => count > 0);
  const bar = element("div", { className: "bar", "aria-hidden": "true" });
  for (const [kind, , count] of shown) {
    const part = element("span", { className: kind });
    part.style.flexGrow = count;
    bar.append(part);
  }
  const legend = shown.map(([kind, name, count]) =>
    element("li", {}, element("i", { className: kind }), element("b", {}, String(count)), ` ${name}`),
  );
  const title = element("p", { className: "title" }, `Positions of the context: ${details.context}`);
  return [title, bar, element("ul", { className: "legend" }, ...legend)];
}

function cuts({ dropped_turns: turns, dropped_audio_s: cut }) {
  const said = [];
  if (turns) said.push(`${turns} earlier messages were left out, as they do not fit into the context.`);
  if (cut) said.push(`${cut.toFixed(1)} s at the end of the recordings were cut.`);
  return said.length ? element("p", { className: "cut" }, said.join(" ")) : null;
}

const input = (it) => (it.kind === "image" ? picture(it) : sound(it));

/** The square that the encoder got, its patches in thin lines and what they are pooled to in thick ones. */
function picture({ positions, size, patch_size: patch, grid, png }) {
  const canvas = element("canvas", { role: "img" });
  const caption = element("figcaption");
  const image = new Image();
  image.onload = () => {
    const side = image.naturalWidth;
    const patches = side / patch;
    drawGrid(canvas, image, patches, grid);
    const cells = grid
      ? `pooled to ${grid} × ${grid} cells${positions > grid * grid ? " and one for the whole" : ""}`
      : "one state for the whole";
    const shared = grid && patches % grid ? "; a patch that a thick line divides belongs to both cells" : "";
    const words =
      `${size.join(" × ")} pixels, made ${side} × ${side}; ${patches} × ${patches} patches (thin lines), ` +
      `${cells}: ${positions} positions${shared}`;
    caption.textContent = words;
    canvas.setAttribute("aria-label", `The picture as the model got it: ${words}`);
  };
  image.src = png;
  return element("figure", {}, canvas, caption);
}

function drawGrid(canvas, image, patches, grid) {
  const side = SIDE * Math.max(1, Math.round(window.devicePixelRatio));
  canvas.width = canvas.height = side;
  const drawing = canvas.getContext("2d");
  drawing.imageSmoothingEnabled = false;
  drawing.drawImage(image, 0, 0, side, side);
  const lines = (count, width, style) => {
    drawing.lineWidth = width;
    drawing.strokeStyle = style;
    drawing.beginPath();
    for (let i = 1; i < count; i++) {
      const at = Math.round((i * side) / count);
      drawing.moveTo(at, 0);
      drawing.lineTo(at, side);
      drawing.moveTo(0, at);
      drawing.lineTo(side, at);
    }
    drawing.stroke();
  };
  const unit = side / SIDE;
  lines(patches, unit, "rgb(0 0 0 / 0.22)");
  lines(grid, 3.5 * unit, "rgb(255 255 255 / 0.85)");
  lines(grid, 1.5 * unit, "rgb(20 90 80)");
}

/** The log-mel with its time axis. */
function sound({ seconds: length, frames, positions, png }) {
  const words = `${length.toFixed(2)} s, ${frames} frames of the log-mel, ${positions} positions; high frequencies at the top`;
  const axis = element("div", { className: "axis", "aria-hidden": "true" });
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60].find((s) => length / s <= 6) ?? 120;
  for (let i = 0; i * step <= length; i++) {
    const tick = element("span", {}, `${Number((i * step).toFixed(1))}${i ? "" : " s"}`);
    tick.style.left = `${(100 * i * step) / length}%`;
    axis.append(tick);
  }
  const image = element("img", { src: png, alt: `The log-mel of the sound: ${words}` });
  return element("figure", { className: "mel" }, image, axis, element("figcaption", {}, words));
}

function timesTable(times) {
  const row = (cell, values) => element("tr", {}, ...values.map((value, i) => element(i ? cell : "th", {}, value)));
  return element(
    "table",
    { className: "times" },
    element("thead", {}, row("th", ["Times", "server", "this page"])),
    element("tbody", {}, ...times.map((values) => row("td", values))),
  );
}

/** The rows of the table, from the server's `muomni` object of the last chunk and the page's own clock. */
export function timeRows(server, page) {
  const rate = (value) => (value === null || value === undefined ? "-" : value.toFixed(1));
  return [
    ["First token", seconds(server.first_token_s), seconds(page.firstToken)],
    ["First sound", seconds(server.first_audio_s), seconds(page.firstSound)],
    ["Tokens a second", rate(server.tokens_per_s), ""],
  ];
}
