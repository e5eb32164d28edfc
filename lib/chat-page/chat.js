// The chat page: what is on it, and what happens when something is pressed. Text of a model is only ever put in as text.
import { alternativesAreShown, hideAlternatives } from "./alternatives.js";
import { $, announce, button, element, memory } from "./elements.js";
import { Refusal, firstModel, stream } from "./server.js";
import { cutAtTokens, plainBlocks, textBlocks, tokenPlaces } from "./text.js";

const [conversation, scroller, problem, prompt, settings] = [
  $("conversation"),
  $("scroller"),
  $("problem"),
  $("prompt"),
  $("settings"),
];
const form = $("settings-form");

/** How many likeliest tokens to ask for with each token. */
const ALTERNATIVES = 5;

/** Messages `{role, text, tokens, view, …}` in their order, the model, and the answer that is being written. */
const chat = { messages: [], model: undefined, writing: undefined, key: "" };

// ------------------------------------------------------------------------------------------------- messages

/** Puts a message on the page. */
function show(message) {
  const body = element("div", { className: "body" });
  const foot = element("div", { className: "foot" });
  const who = element("h3", { className: "unseen", textContent: message.role === "user" ? "You" : "Model" });
  const item = element("li", { className: message.role }, who, body, foot);
  message.view = { item, body, foot, blocks: [] };
  conversation.append(item);
  draw(message);
  if (message.role === "user") drawUserFoot(message);
}

/** Brings the page up to a message's text, touching only what has changed. */
function draw(message) {
  const { view, text, tokens = [] } = message;
  if (message.role === "user") {
    view.body.textContent = text;
    return;
  }
  drawThought(message);
  message.places = tokenPlaces(
    text,
    tokens.map(({ bytes }) => bytes),
  );
  const blocks = chat.model.chat ? textBlocks(text) : plainBlocks(text);
  for (const [i, block] of blocks.entries()) {
    const tag = { code: "pre", heading: "h4" }[block.kind] ?? "p";
    let node = view.blocks[i];
    if (node?.localName !== tag || node.className !== block.kind) {
      const fresh = element(tag, { className: block.kind });
      if (node) node.replaceWith(fresh);
      else view.body.append(fresh);
      node = view.blocks[i] = fresh;
    }
    drawParts(node, text, cutAtTokens(block.parts, message.places), message);
  }
  for (const node of view.blocks.splice(blocks.length)) node.remove();
  view.item.classList.toggle("empty", text === "");
  if (!view.body.querySelector(".token[tabindex='0']"))
    view.body.querySelector(".token")?.setAttribute("tabindex", "0");
}

/** What the model thought before it answered, where that comes apart from the answer. */
function drawThought({ view, thought, text }) {
  if (!thought) return;
  view.thought ??= view.body.parentElement.insertBefore(
    element(
      "details",
      { className: "thoughts", open: true },
      element("summary", { textContent: "Thoughts" }),
      element("p"),
    ),
    view.body,
  );
  view.thought.lastChild.textContent = thought;
  if (text !== "" && !view.isAnswering) {
    view.isAnswering = true;
    view.thought.open = false;
  }
}

/** Fills a block: what is there already and still right stays, so that the token someone looks at is not taken away. */
function drawParts(node, text, parts, message) {
  const children = node.childNodes;
  let same = 0;
  const signature = ({ start, end, tag, place }) => `${start} ${end} ${tag} ${place}`;
  while (same < parts.length && children[same]?.signature === signature(parts[same])) same++;
  while (children.length > same) node.lastChild.remove();
  for (const part of parts.slice(same)) {
    const child = element(part.tag, { textContent: text.slice(part.start, part.end) });
    child.signature = signature(part);
    if (part.place !== undefined) asToken(child, message, part.place);
    node.append(child);
  }
}

/** Makes an element one that shows its token's alternatives. */
function asToken(child, message, place) {
  child.className = "token";
  child.tabIndex = -1;
  child.place = place;
  child.message = message;
  const logprob = message.places[place].tokens.reduce((sum, i) => sum + message.tokens[i].logprob, 0);
  const doubt = Math.min(4, Math.floor(-logprob / Math.LN2));
  if (doubt > 0) child.dataset.doubt = doubt;
}

function drawUserFoot(message) {
  message.view.foot.replaceChildren(
    button("Edit", () => edit(message)),
    button("Copy", ({ target }) => copy(message.text, target)),
  );
}

const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(2)} s`;

/** How fast an answer came: `{first, rate}`, the wait for the first token and the tokens a second after it. */
function speed({ began, firstAt, lastAt, count }) {
  return {
    first: firstAt === undefined ? undefined : seconds(firstAt - began),
    rate: count > 1 && lastAt > firstAt ? ((1000 * (count - 1)) / (lastAt - firstAt)).toFixed(1) : undefined,
  };
}

const ENDS = { length: "cut off at the limit of tokens", stopped: "stopped" };

function drawAnswerFoot(message) {
  const { first, rate } = speed(message);
  const words = message.count > 0 && [
    `${message.count} ${message.count === 1 ? "token" : "tokens"}`,
    rate && `${rate} tokens/s`,
    first && `first after ${first}`,
    `seed ${message.seed}`,
    ENDS[message.finish],
  ];
  const stats = element("span", {
    className: "stats",
    textContent: (words || []).filter(Boolean).join(" · "),
  });
  const isLast = chat.messages.at(-1) === message;
  message.view.foot.replaceChildren(
    stats,
    ...(chat.writing === message
      ? []
      : [
          ...(isLast ? [button("Regenerate", () => regenerate(message))] : []),
          ...(isLast && message.finish === "length" && !chat.model.chat ? [button("Go on", answer)] : []),
          button("Copy", ({ target }) => copy(message.text, target)),
        ]),
  );
}

/** What stands below answers depends on which is the last. */
function drawFeet() {
  for (const message of chat.messages) if (message.role === "assistant") drawAnswerFoot(message);
}

/** Copies a text, in the old way where the page is not a secure one. */
async function copy(text, pressed) {
  const clip = element("textarea", { value: text, className: "unseen" });
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    document.body.append(clip);
    clip.select();
    document.execCommand("copy");
    clip.remove();
    pressed.focus();
  }
  pressed.textContent = "Copied";
  announce("Copied");
  setTimeout(() => {
    pressed.textContent = "Copy";
  }, 1500);
}

/** Takes a message and all after it away. */
function cutFrom(message) {
  for (const gone of chat.messages.splice(chat.messages.indexOf(message))) gone.view.item.remove();
  clearProblem();
}

/** Lets a message be written anew; sending it takes away what followed. */
function edit(message) {
  if (chat.writing) stop();
  const { body, foot } = message.view;
  const field = element("textarea", { value: message.text, ariaLabel: "Edit the message" });
  const cancel = () => {
    draw(message);
    drawUserFoot(message);
    foot.querySelector("button").focus();
  };
  const send = () => {
    if (field.value.trim() === "") return;
    cutFrom(message);
    submit(field.value);
  };
  field.onkeydown = (event) => {
    if (event.key === "Escape") cancel();
    else if (sends(event)) send();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  body.replaceChildren(field);
  foot.replaceChildren(button("Send", send), button("Cancel", cancel));
  grow(field);
  field.oninput = () => grow(field);
  field.focus();
}

function regenerate(message) {
  cutFrom(message);
  answer();
}

// ------------------------------------------------------------------------------------------------- answers

/** How far a text goes on unless told: the interface's own 16 tokens are meant for programs. */
const TEXT_TOKENS = 256;

/** What is sent: the conversation, and those settings that are filled in. */
function request(seed) {
  const given = Object.fromEntries(
    [...form.elements]
      .filter(({ type, value }) => type === "number" && value !== "")
      .map(({ name, value }) => [name, Number(value)]),
  );
  const plain = { model: chat.model.id, ...given, seed };
  if (!chat.model.chat) {
    const prompt = chat.messages.map(({ text }) => text).join("");
    return { max_tokens: TEXT_TOKENS, ...plain, prompt, logprobs: ALTERNATIVES };
  }
  const system = form.elements.system.value.trim();
  const messages = chat.messages.map(({ role, text }) => ({ role, content: text }));
  if (system !== "") messages.unshift({ role: "system", content: system });
  return { ...plain, messages, logprobs: true, top_logprobs: ALTERNATIVES };
}

/** Asks for an answer to the conversation as it stands, and shows it as it comes. */
async function answer() {
  clearProblem();
  $("welcome").hidden = true;
  const seed =
    form.elements.seed.value === ""
      ? crypto.getRandomValues(new Uint32Array(1))[0]
      : Number(form.elements.seed.value);
  const message = { role: "assistant", text: "", tokens: [], count: 0, seed, began: performance.now() };
  const body = request(seed);
  const controller = new AbortController();
  message.controller = controller;
  chat.messages.push(message);
  chat.writing = message;
  show(message);
  drawFeet();
  setBusy(true);
  follow(true);
  announce("The model is writing.");
  try {
    for await (const chunk of stream(body, { key: chat.key, signal: controller.signal }))
      take(message, chunk);
    if (!message.finish) throw new Refusal("The answer broke off.", { code: "unreachable" });
  } catch (error) {
    if (controller.signal.aborted) message.finish = "stopped";
    else explain(error);
  }
  end(message);
}

/** Takes in a part of an answer. */
function take(message, { text, thought, tokens, finish, usage }) {
  const now = performance.now();
  if (text !== "" || thought !== "" || tokens.length > 0) {
    message.firstAt ??= now;
    message.lastAt = now;
  }
  message.text += text;
  message.thought = (message.thought ?? "") + thought;
  message.tokens.push(...tokens);
  message.count += tokens.length > 0 ? tokens.length : Number(text !== "" || thought !== "");
  message.finish = finish ?? message.finish;
  if (usage) {
    message.count = usage.completion_tokens;
    showContext(usage.total_tokens);
  }
  speakSentences(message);
  drawSoon(message);
}

/** Reads whole sentences of the answer out, where someone listens. */
function speakSentences(message) {
  const spoken = message.spoken ?? 0;
  const [sentence] = /^[\s\S]*[.!?:\n](?=\s)/.exec(message.text.slice(spoken)) ?? [];
  if (!sentence?.trim()) return;
  message.spoken = spoken + sentence.length;
  announce(sentence);
}

/** Draws a message at most once a frame, however fast its parts come. */
function drawSoon(message) {
  if (message.drawing) return;
  message.drawing = true;
  requestAnimationFrame(() => {
    message.drawing = false;
    const near = isAtEnd();
    draw(message);
    drawAnswerFoot(message);
    follow(near);
  });
}

/** The end of an answer, whichever way it ended. */
function end(message) {
  chat.writing = undefined;
  const near = isAtEnd();
  if (message.text === "" && !message.thought && message.finish !== "stop" && message.finish !== "length")
    takeAway(message);
  else {
    draw(message);
    drawFeet();
  }
  if (!problem.hasChildNodes())
    announce(
      `${message.text.slice(message.spoken ?? 0)} ${message.finish === "stopped" ? "Stopped." : "The answer is complete."}`,
    );
  setBusy(false);
  follow(near);
  save();
}

/** Takes an answer away of which nothing came. Where it was stopped, what was asked can be written anew. */
function takeAway(message) {
  message.view.item.remove();
  chat.messages.splice(chat.messages.indexOf(message), 1);
  const asked = chat.messages.at(-1);
  if (message.finish !== "stopped" || asked?.role !== "user" || prompt.value !== "") return;
  asked.view.item.remove();
  chat.messages.pop();
  prompt.value = asked.text;
  grow(prompt);
}

function stop() {
  chat.writing?.controller.abort();
}

function setBusy(isBusy) {
  const hadFocus = document.activeElement === $("send") || document.activeElement === $("stop");
  $("send").hidden = isBusy;
  $("stop").hidden = !isBusy;
  conversation.ariaBusy = isBusy;
  if (hadFocus) (isBusy ? $("stop") : prompt).focus();
}

function isAtEnd() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
}

/** Keeps the end in view where it was in view. */
function follow(isNear) {
  if (isNear) scroller.scrollTop = scroller.scrollHeight;
}

// -------------------------------------------------------------------------------------------------- problems

function clearProblem() {
  problem.replaceChildren();
}

/** Says what went wrong, with a way out. */
function explain(error) {
  const { message, code, status, wait } = error;
  const again = button("Try again", askAgain);
  const [sentence, ...ways] =
    status === 401
      ? [chat.key ? "This API key is not the server's." : "This server wants an API key.", keyForm()]
      : code === "unreachable" || error instanceof TypeError
        ? [
            `${error instanceof Refusal ? message : "The answer broke off."} Is \`npx tslm serve\` still running?`,
            again,
          ]
        : code === "context_length_exceeded"
          ? [message, button("New chat", newChat)]
          : status === 429
            ? [`The server is busy${wait ? `: try again in ${wait} s` : ""}.`, again]
            : [message, again];
  problem.replaceChildren(element("p", { textContent: sentence }), ...ways);
  follow(true);
  problem.querySelector("input")?.focus();
}

/** Asks once more for what did not come, or came in part. */
function askAgain() {
  if (!chat.model) return start();
  const last = chat.messages.at(-1);
  if (last?.role === "assistant") regenerate(last);
  else answer();
}

/** A field for the server's key; with a key, what was asked is asked again. */
function keyForm() {
  const field = element("input", {
    type: "password",
    autocomplete: "off",
    ariaLabel: "API key",
    placeholder: "API key",
  });
  const asking = element(
    "form",
    { className: "key" },
    field,
    element("button", { type: "submit", textContent: "Use this key" }),
  );
  asking.onsubmit = (event) => {
    event.preventDefault();
    useKey(field.value.trim());
    askAgain();
  };
  return asking;
}

function useKey(key) {
  chat.key = key;
  form.elements.key.value = key;
  $("key-field").hidden = false;
  memory.set("key", key, "sessionStorage");
}

// -------------------------------------------------------------------------------------------------- the form

/** Whether a key press sends what is written. Enter also ends the input of a character in some scripts. */
const sends = ({ key, shiftKey, isComposing }) => key === "Enter" && !shiftKey && !isComposing;

/** Makes a field as high as its text, up to a point. */
function grow(field) {
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, innerHeight * 0.4)}px`;
}

function submit(text) {
  const message = { role: "user", text };
  chat.messages.push(message);
  show(message);
  answer();
}

$("composer").onsubmit = (event) => {
  event.preventDefault();
  if (chat.writing || !chat.model || prompt.value.trim() === "") return;
  const text = prompt.value;
  prompt.value = "";
  grow(prompt);
  submit(text);
};
prompt.onkeydown = (event) => {
  if (!sends(event)) return;
  event.preventDefault();
  $("composer").requestSubmit();
};
prompt.oninput = () => grow(prompt);
$("stop").onclick = stop;

document.addEventListener("keydown", ({ key }) => {
  if (key !== "Escape") return;
  if (chat.writing) stop();
  else if (alternativesAreShown()) hideAlternatives();
  else if (settings.contains(document.activeElement)) showSettings(false);
});

function newChat() {
  stop();
  for (const { view } of chat.messages.splice(0)) view.item.remove();
  clearProblem();
  showContext(0);
  save();
  welcome();
  prompt.focus();
}
$("new-chat").onclick = newChat;

/** Keeps the conversation for as long as this tab is open. */
function save() {
  const plain = chat.messages.map(({ view, controller, places, ...message }) => message);
  memory.set("chat", { model: chat.model?.id, messages: plain }, "sessionStorage");
}

function restore() {
  const { model, messages } = memory.get("chat", "sessionStorage") ?? {};
  if (model !== chat.model.id || !messages?.length) return;
  chat.messages = messages;
  for (const message of messages) show(message);
  drawFeet();
  $("welcome").hidden = true;
  follow(true);
}

// --------------------------------------------------------------------------------------------------- settings

function showSettings(isShown) {
  settings.hidden = !isShown;
  $("settings-button").ariaExpanded = isShown;
  document.body.classList.toggle("with-settings", isShown);
  if (isShown) settings.querySelector("label:not([hidden]) :is(input, textarea)").focus();
  else $("settings-button").focus();
}
$("settings-button").onclick = () => showSettings(settings.hidden);
$("settings-close").onclick = () => showSettings(false);

/** Settings are remembered, but for the key, which lasts as long as the tab. */
function saveSettings() {
  const fields = [...form.elements].filter(({ name }) => name && name !== "key");
  memory.set("settings", Object.fromEntries(fields.map(({ name, value }) => [name, value])));
}
form.oninput = ({ target }) => {
  if (target.name === "key") useKey(target.value);
  else saveSettings();
};
form.onreset = () => setTimeout(saveSettings);
form.onsubmit = (event) => event.preventDefault();
for (const [name, value] of Object.entries(memory.get("settings") ?? {}))
  if (form.elements[name]) form.elements[name].value = value;

const THEMES = { auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark" };

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  $("theme").textContent = THEMES[theme];
  $("theme").title = "Colours of the page: as the system has them, light, dark";
  memory.set("theme", theme);
}
$("theme").onclick = () => {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(memory.get("theme") ?? "auto") + 1) % names.length]);
};
setTheme(memory.get("theme") in THEMES ? memory.get("theme") : "auto");

$("certainty").onclick = () => {
  const isOn = document.body.classList.toggle("certainty");
  $("certainty").ariaPressed = isOn;
};

// ------------------------------------------------------------------------------------------------------ start

function showContext(tokens) {
  const length = chat.model?.max_model_len;
  $("context-use").textContent =
    tokens && length ? `${tokens.toLocaleString("en")} of ${length.toLocaleString("en")} tokens` : "";
}

const WELCOME = {
  chat: {
    title: "Ask something",
    text: "Answers come word by word. Point at a word, or walk through an answer with the arrow keys, to see what else could have stood there.",
    suggestions: ["Tell me a short story about a fox.", "What is a token?", "Write a haiku about rain."],
    label: "Message",
  },
  plain: {
    title: "Begin a text",
    text: "This model has not learned to chat: it continues what you write. Point at a word, or walk through the text with the arrow keys, to see what else could have stood there.",
    suggestions: ["Once upon a time, there was", "One day, a little girl named Lily", "The sun"],
    label: "Text to continue",
  },
};

function welcome() {
  const { title, text, suggestions, label } = WELCOME[chat.model.chat ? "chat" : "plain"];
  $("welcome-title").textContent = title;
  $("welcome-text").textContent = text;
  $("suggestions").replaceChildren(
    ...suggestions.map((suggestion) => button(suggestion, () => submit(suggestion))),
  );
  $("prompt-label").textContent = prompt.placeholder = label;
  $("welcome").hidden = false;
}

async function start() {
  clearProblem();
  try {
    chat.model = await firstModel(chat.key);
  } catch (error) {
    explain(error);
    return;
  }
  const { id, chat: knowsChats } = chat.model;
  $("model-name").textContent = id;
  document.title = `${id} · tslm`;
  document.body.classList.toggle("plain", !knowsChats);
  $("system-field").hidden = !knowsChats;
  welcome();
  restore();
  prompt.focus();
}

const storedKey = memory.get("key", "sessionStorage");
if (storedKey) useKey(storedKey);
start();
