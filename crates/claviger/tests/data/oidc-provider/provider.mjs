// The OpenID provider that people log in at in tests and in the bench: npm's oidc-provider with its own login pages, over
// HTTPS, and beside it what a test may change while it runs. Anybody logs in with any password.
//
// Environment: OIDC_PROVIDER (the library's index.js), PORT (0 takes a free one), CERT and KEY (PEM files), ALG (a signature
// algorithm). Prints `ready ISSUER`, and for each line that it is given `spent MILLISECONDS`: its own time so far.
import { spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import https from 'node:https';
import { createInterface } from 'node:readline';

const { default: Provider, errors } = await import(process.env.OIDC_PROVIDER);
const algorithm = process.env.ALG ?? 'ES256';

// Tests shift the clock; the library asks this one.
const realNow = Date.now.bind(Date);
let shift = 0;
Date.now = () => realNow() + shift;

const groups = new Map();
let keys = 0;

function signingKey() {
  const kinds = { ES256: ['ec', { namedCurve: 'P-256' }], RS256: ['rsa', { modulusLength: 2048 }], EdDSA: ['ed25519', {}] };
  const jwk = generateKeyPairSync(...kinds[algorithm]).privateKey.export({ format: 'jwk' });
  return { ...jwk, kid: `key-${realNow()}-${keys++}`, alg: algorithm, use: 'sig' };
}

function configuration() {
  return {
    jwks: { keys: [signingKey()] },
    cookies: { keys: ['of a test'] },
    clients: [
      {
        client_id: 'claviger',
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        redirect_uris: ['http://127.0.0.1/callback'],
        response_types: ['code'],
        grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
        id_token_signed_response_alg: algorithm,
      },
      // Not ours: what it gets must be nothing to us.
      {
        client_id: 'another',
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        redirect_uris: ['http://127.0.0.1/callback'],
        response_types: ['code'],
        grant_types: ['authorization_code'],
        id_token_signed_response_alg: algorithm,
      },
      {
        client_id: 'knox',
        token_endpoint_auth_method: 'none',
        redirect_uris: [],
        response_types: [],
        grant_types: ['password'],
        id_token_signed_response_alg: algorithm,
      },
    ],
    pkce: { required: () => true, methods: ['S256'] },
    features: { deviceFlow: { enabled: true }, revocation: { enabled: true }, userinfo: { enabled: false } },
    claims: { openid: ['sub'], profile: ['preferred_username', 'groups'] },
    // Claims in the ID token itself, as providers do that people point programs at.
    conformIdTokenClaims: false,
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, preferred_username: id, groups: groups.get(id) ?? ['people'] }),
    }),
    ttl: { IdToken: 600, AccessToken: 600, AuthorizationCode: 60, DeviceCode: 600, RefreshToken: 86400, Session: 86400, Grant: 86400, Interaction: 600 },
  };
}

let issuer;
let provider;
let handle;

function begin() {
  // What was given out lives in the library's memory, which all of its providers share: only the keys are new.
  provider = new Provider(issuer, configuration());
  provider.registerGrantType('password', password, ['username', 'password', 'scope']);
  handle = provider.callback();
}

// RFC 6749 §4.3, as sites of Knox have it for `knox login`.
async function password(ctx, next) {
  const { username, password } = ctx.oidc.params;
  if (password !== 'correct horse') throw new errors.InvalidGrant('wrong password');
  const grant = new provider.Grant({ accountId: username, clientId: ctx.oidc.client.clientId });
  grant.addOIDCScope('openid');
  const token = new provider.AccessToken({
    accountId: username, client: ctx.oidc.client, grantId: await grant.save(), gty: 'password', scope: 'openid',
  });
  ctx.body = { access_token: await token.save(), expires_in: token.expiration, token_type: 'Bearer' };
  await next();
}

function answer(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

// GET /user and GET /user/orgs, as GitHub has them, for access tokens of this provider.
async function github(request, response, url) {
  const [, token] = /^(?:Bearer|token) (.+)$/i.exec(request.headers.authorization ?? '') ?? [];
  const found = token && (await provider.AccessToken.find(token));
  if (!found) return answer(response, 401, { message: 'Bad credentials' });
  if (url.pathname === '/user') return answer(response, 200, { login: found.accountId, id: 1 });
  const all = groups.get(found.accountId) ?? ['people'];
  const page = Number(url.searchParams.get('page') ?? '1');
  const size = Math.min(Number(url.searchParams.get('per_page') ?? '30'), 100);
  if (all.length > page * size) {
    response.setHeader('link', `<${issuer}/user/orgs?per_page=${size}&page=${page + 1}>; rel="next"`);
  }
  answer(response, 200, all.slice((page - 1) * size, page * size).map((login) => ({ login })));
}

function control(response, url) {
  const { searchParams: given } = url;
  switch (url.pathname) {
    case '/test/rotate': begin(); break;
    case '/test/clock': shift = Number(given.get('shift')) * 1000; break;
    case '/test/groups': groups.set(given.get('user'), given.get('groups').split(',').filter(Boolean)); break;
    case '/test/browse': browse(given.get('user'), given.get('url')); break;
    default: return answer(response, 404, {});
  }
  answer(response, 200, {});
}

// A desktop's browser, with somebody before it. Like `xdg-open`, it is not waited for.
function browse(user, url) {
  const browser = new URL('browser.mjs', import.meta.url).pathname;
  spawn(process.execPath, [browser, url, user], { env: { ...process.env, NODE_EXTRA_CA_CERTS: process.env.CERT }, stdio: 'ignore' });
}

let spent = 0;

const server = https.createServer({ cert: readFileSync(process.env.CERT), key: readFileSync(process.env.KEY) }, (request, response) => {
  const begun = performance.now();
  response.on('finish', () => (spent += performance.now() - begun));
  const url = new URL(request.url, issuer);
  if (url.pathname.startsWith('/test/')) return control(response, url);
  if (url.pathname === '/user' || url.pathname === '/user/orgs') return void github(request, response, url);
  return handle(request, response);
});
server.keepAliveTimeout = 60000;
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  issuer = `https://localhost:${server.address().port}`;
  begin();
  console.log(`ready ${issuer}`);
  // Nobody reads on, and a full or closed pipe would end the process.
  console.info = () => {};
});
// It ends with whoever started it.
createInterface({ input: process.stdin })
  .on('line', () => console.log(`spent ${spent}`))
  .on('close', () => process.exit(0));
