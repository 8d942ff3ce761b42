// Opens a share in the browser: what decrypts it is behind the `#` of the address, which is sent to nobody. Nothing happens before the
// button is pressed, so that programs which look at links use no view up.
"use strict";

const utf8 = (text) => new TextEncoder().encode(text);

function fromBase64(text) {
  const standard = text.replaceAll("-", "+").replaceAll("_", "/");
  return Uint8Array.from(atob(standard), (character) => character.charCodeAt(0));
}

const toBase64 = (bytes) => btoa(String.fromCharCode(...bytes));

async function derive(crypto, key, info) {
  const material = await crypto.subtle.importKey("raw", key, "HKDF", false, ["deriveBits"]);
  const how = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(0), info: utf8(info) };
  return new Uint8Array(await crypto.subtle.deriveBits(how, material, 256));
}

// The secret of a link's fragment, `ID.KEY`. `ask` sends a request for the ciphertext, which uses a view up.
async function openShare(fragment, crypto, ask) {
  const [, id, text] = /^([0-9a-f]{32})\.([A-Za-z0-9_-]{43})$/.exec(fragment) ?? [];
  if (!id) throw new Error("This link is not whole. Ask for it again, and copy all of it.");
  const key = fromBase64(text);
  const { data, views_left } = await ask({ id, token: toBase64(await derive(crypto, key, "claviger share token")) });
  const cipher = await crypto.subtle.importKey("raw", await derive(crypto, key, "claviger share key"), "AES-GCM", false, ["decrypt"]);
  const how = { name: "AES-GCM", iv: new Uint8Array(12), additionalData: utf8("claviger share " + id) };
  return { secret: new Uint8Array(await crypto.subtle.decrypt(how, cipher, fromBase64(data))), views_left };
}

async function ask(body) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("/api/v1/share/open", { method: "POST", headers, body: JSON.stringify(body), cache: "no-store" });
  if (answer.ok) return answer.json();
  if (answer.status === 404) throw new Error("There is nothing to open: it was opened already, has expired, or was taken back.");
  throw new Error("It could not be opened now (" + answer.status + "). Try again later.");
}

if (typeof document !== "undefined") {
  const [told, button, shown] = ["told", "open", "secret"].map((id) => document.getElementById(id));
  button.disabled = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const { secret, views_left } = await openShare(location.hash.slice(1), crypto, ask);
      shown.textContent = new TextDecoder().decode(secret);
      told.textContent = views_left > 0 ? "It can be shown " + views_left + " more times." : "It cannot be shown again. Keep it now.";
      history.replaceState(null, "", location.pathname);
    } catch (error) {
      told.textContent = error.message || "It could not be decrypted.";
    }
  });
}
