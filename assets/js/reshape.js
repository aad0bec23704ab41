/**
 * What the server can tell of one position: its distribution after every filter, under the settings that made its
 * token or under those in force. One call at a time, the newest wish next, answers kept. And the one form in which
 * the page shows a position, be it from the token's own record or from such an answer.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, parameters } = glassbox;

  const KEPT = 64; // answers
  const LISTED = 20; // candidates recorded for every token; a chosen one below them is added as the last
  const IDLE = ['stop', 'max_new_tokens']; // settings that shape no distribution

  /**
   * @typedef {object} View
   * @property {number} position
   * @property {'record'|'now'|'given'|'ahead'} how as recorded, re-shaped, a token that was given, what comes next
   * @property {number|null} id what stands there
   * @property {Array<[number, string, number, number, string]>} cand id, text, raw, final, removed by
   * @property {number} listed how many of `cand` are the likeliest ones, in order; others were added
   * @property {number} rank of what stands there
   * @property {number|null} u the draw, null when chosen by hand
   * @property {number|null} drawn what the draw falls on
   * @property {object} params the settings
   * @property {Array<{name: string, tokens: number, kept: number, probs?: number[]}>} stages the model, then filters
   * @property {string[]} ignored filters that were left out here
   * @property {boolean} full whether the stages know what they removed
   */

  // ---- settings that shape alike ----

  /** What of some settings shapes a distribution: the filters that act, in their order, with their values. */
  const shaping = (params) => {
    const valuesOf = (name) =>
      store.filters[name].filter((key) => parameters.acts(params, key)).map((key) => params[key]);
    return parameters.activeFilters(params).map((name) => [name, valuesOf(name)]);
  };

  /** Whether the settings in force shape otherwise than `made`. */
  const differs = (made) => !parameters.same(shaping(made), shaping(store.params));

  const inForce = () =>
    Object.fromEntries(Object.entries(store.params).filter(([key]) => !IDLE.includes(key)));

  // ---- answers ----

  /** @type {Map<string, object>} */ const answers = new Map();
  let wanted = null;
  let calling = false;
  let timer = 0;
  let streaming = false;

  function keyOf({ position, base, n }) {
    const id = (store.tokens[position] || {}).id;
    const settings = base === 'made' ? null : inForce();
    return JSON.stringify([store.sid, store.epoch, store.branch, position, id, store.seed, n, settings]);
  }

  function keep(key, answer) {
    answers.set(key, answer);
    if (answers.size > KEPT) answers.delete(answers.keys().next().value);
  }

  async function fetched({ position, base, n }) {
    const settings = base === 'made' ? { base } : { base, params: inForce() };
    try {
      return { ...(await glassbox.rpc('shape', { position, n, ...settings })), n };
    } catch (error) {
      return { error: error.message };
    }
  }

  async function call() {
    timer = 0;
    if (!wanted || calling) return;
    const { key, wish } = wanted;
    wanted = null;
    calling = true;
    keep(key, await fetched(wish));
    calling = false;
    glassbox.emit('shape');
    call();
  }

  /**
   * The answer for a position, or undefined while it is on its way; topic 'shape' tells that it came. A newer wish
   * takes the place of one that was not sent yet; `rest` are milliseconds to wait for a newer one.
   * @param {{position: number, base: 'now'|'made', n: number, rest: number}} wish
   */
  function ask(wish) {
    const key = keyOf(wish);
    wanted = answers.has(key) ? null : { key, wish };
    if (!wanted) return answers.get(key);
    clearTimeout(timer);
    timer = setTimeout(call, wish.rest);
    return undefined;
  }

  /** Nothing is wished for any more. */
  const forget = () => {
    wanted = null;
  };

  /** What failed while text streamed may work once it has stopped. */
  glassbox.on('state', () => {
    if (streaming === store.streaming) return;
    streaming = store.streaming;
    for (const [key, answer] of answers) if (answer.error) answers.delete(key);
  });

  // ---- views ----

  function lightStages({ st = [] }) {
    const model = { name: 'model', tokens: store.model.vocab_size, kept: 1 };
    return [model, ...st.map(([name, tokens, kept]) => ({ name, tokens, kept }))];
  }

  /** A sampled token by its own record, with what the server adds to it if that is here. */
  function ofRecord(token, answer) {
    const { id, u, rank, cand, i: position } = token;
    const drawn = u === null ? null : id;
    const own = { how: 'record', position, id, u, rank, drawn };
    if (answer) return { ...ofAnswer(answer), ...own };
    const below = cand.length > LISTED && cand[cand.length - 1][0] === id;
    const listed = below ? LISTED : cand.length;
    const params = store.settings[token.par] || {};
    return { ...own, cand, listed, params, stages: lightStages(token), ignored: token.ig || [], full: false };
  }

  /** A position as the server shapes it. */
  function ofAnswer(answer, how) {
    const { position, token: id, cand, rank, u, drawn, params, stages, ignored = [], coin } = answer;
    const listed = Math.min(answer.n, cand.length);
    return { how, position, id, cand, listed, rank, u, drawn, params, stages, ignored, coin, full: true };
  }

  glassbox.reshape = { ask, forget, differs, ofRecord, ofAnswer, LISTED };
})();
