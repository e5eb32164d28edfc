// What else could have stood where a token stands: shown beside it when it is pointed at, or when the keyboard is there.
import { $, element } from "./elements.js";
import { visible } from "./text.js";

const [conversation, scroller] = [$("conversation"), $("scroller")];
const tip = $("alternatives");

export const alternativesAreShown = () => !tip.hidden;

/** Shows, beside a token, what else could have stood there, each with its probability. */
function showAlternatives(token) {
  const { message, place } = token;
  const rows = message.places[place].tokens.map((i) => alternativesTable(message.tokens[i]));
  tip.replaceChildren(...rows);
  tip.hidden = false;
  for (const other of document.querySelectorAll("[aria-describedby='alternatives']"))
    other.removeAttribute("aria-describedby");
  token.setAttribute("aria-describedby", "alternatives");
  const [at] = token.getClientRects();
  const { width, height } = tip.getBoundingClientRect();
  const below = at.bottom + 6 + height < innerHeight;
  tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
  tip.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - height - 6)}px`;
}

/** A token's alternatives as a list with bars; the one that was chosen stands out. */
function alternativesTable({ text, logprob, alternatives }) {
  const isChosen = (other) => other.text === text && Math.abs(other.logprob - logprob) < 1e-3;
  const rows = alternatives.some(isChosen) ? alternatives : [...alternatives, { text, logprob }];
  const list = element("ul");
  for (const other of rows.toSorted((a, b) => b.logprob - a.logprob)) {
    const percent = 100 * Math.exp(other.logprob);
    const bar = element("span", { className: "bar" });
    bar.style.width = `${percent}%`;
    const chosen = isChosen(other);
    list.append(
      element(
        "li",
        { className: chosen ? "chosen" : "" },
        element("code", { textContent: visible(other.text) }),
        element("span", { className: "track", ariaHidden: "true" }, bar),
        element("span", {
          className: "percent",
          textContent: `${percent < 0.1 ? "< 0.1" : percent.toFixed(1)} %`,
        }),
        element("span", { className: "unseen", textContent: chosen ? " chosen" : "" }),
      ),
    );
  }
  return list;
}

export function hideAlternatives() {
  tip.hidden = true;
}

const tokenOf = (target) => (target instanceof Element ? target.closest(".token") : null);

conversation.addEventListener("pointerover", ({ target }) => {
  const token = tokenOf(target);
  if (token) showAlternatives(token);
  else hideAlternatives();
});
conversation.addEventListener("pointerleave", () => {
  const focused = tokenOf(document.activeElement);
  if (focused) showAlternatives(focused);
  else hideAlternatives();
});
conversation.addEventListener("focusin", ({ target }) => {
  const token = tokenOf(target);
  if (!token) return;
  for (const other of token.message.view.body.querySelectorAll(".token[tabindex='0']")) other.tabIndex = -1;
  token.tabIndex = 0;
  showAlternatives(token);
});
conversation.addEventListener("focusout", hideAlternatives);
scroller.addEventListener("scroll", hideAlternatives);

/** Walks from token to token: an answer is one stop of the Tab key. */
conversation.addEventListener("keydown", (event) => {
  const token = tokenOf(event.target);
  if (!token || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = [...token.message.view.body.querySelectorAll(".token")];
  const at = all.indexOf(token);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  all[Math.max(0, Math.min(all.length - 1, to))].focus();
});
