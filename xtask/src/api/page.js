// What a person does on /docs, for page.rs.
"use strict";

const until = async (what, find) => {
  for (const end = Date.now() + 20000; Date.now() < end; ) {
    const found = find();
    if (found) return found;
    await new Promise((next) => setTimeout(next, 50));
  }
  throw new Error(`the page never showed ${what}`);
};

const one = (what, selector) => until(what, () => document.querySelector(selector));

// As React hears it: a value that a script assigns goes by unnoticed.
const type = (input, text) => {
  const { set } = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value");
  set.call(input, text);
  input.dispatchEvent(new Event("input", { bubbles: true }));
  input.dispatchEvent(new Event("change", { bubbles: true }));
};

// The number of tags that the page lists.
window.rendered = async () => {
  await one("the description", ".opblock-tag");
  return document.querySelectorAll(".opblock-tag").length;
};

// Opens the dialog, types the key into the scheme of that name, and closes it.
window.authorise = async (name, key) => {
  (await one("the button to authorise", ".auth-wrapper button.authorize")).click();
  const find = () =>
    [...document.querySelectorAll(".dialog-ux .auth-container")].find((scheme) => scheme.innerText.includes(name));
  const scheme = await until(`the scheme ${name}`, find);
  type(scheme.querySelector("input"), key);
  scheme.querySelector("button.authorize").click();
  await until("that it took the key", () => /logout/i.test(find()?.innerText ?? ""));
  (await one("the button to close the dialog", ".dialog-ux .close-modal")).click();
};

// Opens an operation, sends it as it is, and returns the status and the body that the page shows.
window.execute = async (tag, operation) => {
  const place = `#operations-${tag}-${operation}`;
  (await one(`the tag ${tag}`, `#operations-tag-${tag}`)).click();
  (await one(`the operation ${operation}`, `${place} .opblock-summary-control`)).click();
  (await one("the button to execute", `${place} button.execute`)).click();
  const answer = `${place} .live-responses-table`;
  const status = await one("an answer", `${answer} tbody .response-col_status`);
  const body = await one("the answer's body", `${answer} .highlight-code`);
  return [status.innerText.trim(), body.innerText];
};
