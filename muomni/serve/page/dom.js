// Small helpers for the document. Text always enters it as text, never as HTML.

export const byId = (id) => document.getElementById(id);

/** Make an element; children are nodes or strings. Keys of `properties` with a dash are attributes. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** An icon from the symbols in index.html. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button with an icon and words. */
export function button(name, label, onclick) {
  return element("button", { type: "button", onclick }, icon(name), element("span", {}, label));
}

/** Tell users of a screen reader. */
export function announce(text) {
  byId("announcement").textContent = text;
}

/** Show a message above the question, or take it away with an empty text. */
export function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

/** Seconds as people read them: "0.34 s". */
export const seconds = (value) => (value === null || value === undefined ? "-" : `${value.toFixed(2)} s`);

/** Keep the end of the page in view, unless the reader has scrolled up. */
export function followEnd(change) {
  const room = document.scrollingElement;
  const near = room.scrollHeight - room.scrollTop - room.clientHeight < 120;
  change();
  if (near) room.scrollTop = room.scrollHeight;
}
