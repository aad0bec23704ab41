/**
 * The patterns of attention that the page keeps: of everything that was looked at lately. New rows arrive pushed, one a
 * token, for what is watched; what is missing is pulled. Draws nothing.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, Pattern } = glassbox;

  const KEPT_BYTES = 48 << 20;
  const CHECK_MS = 40;
  const RETRY_MS = 1500;
  const MANY = 64; // tiles of one call at most

  // ---- what is kept ----

  /** @type {Map<string, Pattern>} latest used last */ const kept = new Map();
  /** @type {Map<string, Promise<void>>} */ const pulls = new Map();
  /** what is kept whole: the sight in the panel, and the one that is compared with it */
  let wanted = [];

  function use(sight) {
    const pattern = kept.get(sight.key) || new Pattern(sight);
    kept.delete(sight.key);
    kept.set(sight.key, pattern);
    let total = 0;
    for (const { bytes } of kept.values()) total += bytes;
    for (const [key, old] of kept) {
      if (total <= KEPT_BYTES) break;
      if (old === pattern || wanted.some((one) => one.key === key)) continue;
      total -= old.bytes;
      kept.delete(key);
    }
    return pattern;
  }

  const get = (sight) => {
    const pattern = kept.get(sight.key);
    return pattern && pattern.overview ? pattern : null;
  };

  const announce = () => glassbox.emit('attention');

  const isComplete = (sight) => {
    const pattern = kept.get(sight.key);
    return pattern != null && !pattern.stale && pattern.n >= store.rows;
  };

  // ---- pulling ----

  async function fetchOverview(sight) {
    const pattern = use(sight);
    const { epoch } = store;
    const reply = await glassbox.rpc('overview', sight.args);
    if (reply.epoch !== epoch || store.epoch !== epoch || kept.get(sight.key) !== pattern) return;
    if (reply.tile) pattern.takeOverview(reply);
    else Object.assign(pattern, { stale: false, n: reply.n, start: reply.start, overview: null });
    announce();
    if (wanted.length && wanted[0].key === sight.key) tell();
  }

  /** Pulls the overview of a sight; a pull under way is not doubled. Fails as the server's reply does. */
  function pull(sight) {
    if (!pulls.has(sight.key)) {
      pulls.set(sight.key, fetchOverview(sight).finally(() => pulls.delete(sight.key)));
    }
    return pulls.get(sight.key);
  }

  /** Pulls finer tiles that are not here, one call at a time; the last wish counts. */
  async function pullTiles(pattern, places) {
    const missing = places.filter(([level, y, x]) => !pattern.tile(level, y, x)).slice(0, MANY);
    if (!missing.length || pattern.busy || pattern.stale) return;
    pattern.busy = true;
    const { epoch } = store;
    try {
      const { low, high } = pattern;
      const reply = await glassbox.rpc('tiles', { ...pattern.sight.args, tiles: missing, low, high });
      const good = reply.epoch === epoch && store.epoch === epoch && low === pattern.low && high === pattern.high;
      if (good) for (const tile of reply.tiles) pattern.takeTile(tile, reply.n);
      if (good && reply.tiles.length) announce();
    } catch (error) {
      glassbox.emit('attention-failed', error.message);
    }
    pattern.busy = false;
  }

  // ---- keeping what is looked at whole ----

  let timer = 0;
  let lost = false;

  function checkSoon(after = CHECK_MS) {
    if (!timer && !lost && wanted.length) timer = setTimeout(check, after);
  }

  function check() {
    timer = 0;
    const sight = wanted.find((one) => !isComplete(one));
    if (!sight || !store.sid || !store.rows || document.hidden) return;
    const pushed = sight === wanted[0] && told === choiceOf(sight);
    pull(sight).then(
      () => isComplete(sight) || checkSoon(pushed || !store.streaming ? CHECK_MS * 4 : RETRY_MS),
      (error) => {
        glassbox.emit('attention-failed', error.message);
        checkSoon(RETRY_MS);
      },
    );
  }

  // ---- whose rows the server pushes ----

  let told = '';
  let telling = false;

  const canPush = ({ args, kind }) => args.mix !== 'rollout' && kind !== 'difference' && args.branch == null;

  function choiceOf(sight) {
    const pattern = sight && kept.get(sight.key);
    return sight && canPush(sight) && pattern ? `${store.sid} ${sight.key} ${pattern.low} ${pattern.high}` : `${store.sid}`;
  }

  /** Tells the server, one call at a time, the last choice always. */
  async function tell() {
    const [sight] = wanted;
    const choice = choiceOf(sight);
    if (telling || !store.sid || told === choice) return;
    telling = true;
    let wait = 0;
    try {
      const { low, high } = (sight && kept.get(sight.key)) || {};
      await glassbox.rpc('select', sight && canPush(sight) ? { key: sight.key, low, high, ...sight.args } : {});
      told = choice;
    } catch {
      wait = RETRY_MS; // rows that are not pushed are pulled
    }
    telling = false;
    if (!lost) setTimeout(tell, wait);
  }

  /** Keeps these sights whole from now on; the first one's new rows are pushed. None: the panel is closed. */
  function want(sights) {
    wanted = sights;
    for (const sight of sights) use(sight);
    tell();
    if (!sights.every(isComplete)) check();
  }

  function takePushed({ key, rows }) {
    const pattern = kept.get(key);
    if (!pattern) return;
    let moved = false;
    for (const { i, bytes } of rows) moved = (pattern.push(i, bytes) && i < pattern.n) || moved;
    if (moved) announce();
  }

  glassbox.on('row', takePushed);
  glassbox.on('tokens', ({ from, truncated }) => {
    if (!truncated) return;
    for (const pattern of kept.values()) pattern.cut(from);
    announce();
    checkSoon();
  });
  glassbox.on('state', () => checkSoon());
  glassbox.on('visible', () => checkSoon());
  glassbox.on('lost', () => {
    lost = true;
  });

  glassbox.patterns = {
    get,
    pull,
    pullTiles,
    want,
    isComplete,
    /** Forgets everything: another conversation or another model. */
    clear() {
      kept.clear();
    },
  };
})();
