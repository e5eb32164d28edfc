// What the parts of the page share: elements, what a browser remembers, and words for a screen reader.

export const $ = (id) => document.getElementById(id);

/** An element with properties, and text or elements in it. */
export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export function button(label, onclick, more = {}) {
  return element("button", { type: "button", textContent: label, onclick, ...more });
}

/** What is remembered in this browser, where it lets pages remember. */
export const memory = {
  get(name, store = "localStorage") {
    try {
      return JSON.parse(window[store].getItem(`tslm.${name}`));
    } catch {
      return undefined;
    }
  },
  set(name, value, store = "localStorage") {
    try {
      window[store].setItem(`tslm.${name}`, JSON.stringify(value));
    } catch {
      // Without a memory all goes on as well.
    }
  },
};

/** Tells a screen reader. */
export function announce(text) {
  $("announcer").textContent = text;
}
