// What a person does with a browser at the provider beside this file, without one: follows redirects, keeps cookies, logs in
// with any password, consents.
//
// Arguments: where to begin; whom to log in as; `visit` to end at the program's own page, `print` to say what the provider
// would have sent the browser to instead, `deny` to refuse. NODE_EXTRA_CA_CERTS names the provider's CA.
const [, , start, user, end = 'visit'] = process.argv;
const jar = new Map();

function keep(url, response) {
  for (const line of response.headers.getSetCookie()) {
    const [pair, ...attributes] = line.split(';').map((part) => part.trim());
    const path = attributes.find((a) => a.toLowerCase().startsWith('path='))?.slice(5) ?? '/';
    const [name, value] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)];
    if (value) jar.set(`${name};${path}`, { name, value, path });
    else jar.delete(`${name};${path}`);
  }
}

async function go(url, form) {
  const cookies = [...jar.values()].filter((c) => url.pathname.startsWith(c.path)).map((c) => `${c.name}=${c.value}`);
  const response = await fetch(url, {
    redirect: 'manual',
    method: form ? 'POST' : 'GET',
    headers: { cookie: cookies.join('; '), ...(form && { 'content-type': 'application/x-www-form-urlencoded' }) },
    body: form && new URLSearchParams(form).toString(),
  });
  keep(url, response);
  return response;
}

function attribute(tag, name) {
  return new RegExp(`\\b${name}="([^"]*)"`).exec(tag)?.[1];
}

// The page's form with its hidden fields, and what a person puts into the others.
function fill(page) {
  const form = /<form[^>]*>/.exec(page)?.[0];
  if (!form) return undefined;
  const fields = {};
  for (const [input] of page.matchAll(/<input[^>]*>/g)) {
    const name = attribute(input, 'name');
    if (name === 'login') fields.login = user;
    else if (name === 'password') fields.password = 'any';
    else if (name) fields[name] = attribute(input, 'value') ?? '';
  }
  if (form.includes('deviceConfirmForm')) fields.confirm = 'yes';
  return { action: attribute(form, 'action'), fields };
}

let url = new URL(start);
let response = await go(url);
for (let step = 0; step < 20; step++) {
  const location = response.headers.get('location');
  if (location) {
    url = new URL(location, url);
    if (url.hostname === '127.0.0.1') {
      if (end === 'print') console.log(url.href);
      else console.log((await fetch(url)).status);
      process.exit(0);
    }
    response = await go(url);
    continue;
  }
  const page = await response.text();
  const abort = end === 'deny' && /href="([^"]*abort)"/.exec(page)?.[1];
  if (abort) {
    url = new URL(abort, url);
    response = await go(url);
    continue;
  }
  const form = fill(page);
  if (!form) {
    console.log(/success/i.test(page) ? 'done' : `stopped at ${url.href}: ${page.replace(/<style[\s\S]*?<\/style>|<[^>]*>/g, ' ').replace(/\s+/g, ' ')}`);
    process.exit(0);
  }
  url = new URL(form.action, url);
  response = await go(url, form.fields);
}
console.log('too many steps');
