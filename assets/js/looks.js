/**
 * How attention is looked at: which heads together, which quantity, what becomes of the first token, how values become
 * colours, in which view, and what is pinned to be compared with. One object for the whole page, `glassbox.looks`,
 * changed by `glassbox.look(patch)` and announced as topic 'look'.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;

  /** Choices of each setting; the first one is the default. */
  const CHOICES = {
    over: ['head', 'layer-mean', 'layer-max', 'set-mean', 'set-max', 'rollout'],
    what: ['weight', 'score', 'value'],
    sink: ['out', 'rest', 'in'],
    scale: ['sqrt', 'linear', 'log'],
    view: ['map', 'lines', 'text'],
    versus: ['side', 'difference'],
    way: ['reads', 'read_by'],
    unit: ['token', 'word'],
  };

  /**
   * @typedef {object} Pin something to compare with: a token, a head, a branch
   * @property {number} layer @property {number} head @property {string} over @property {number[][]} set
   * @property {number} position @property {number} branch
   */
  const looks = {
    ...Object.fromEntries(Object.entries(CHOICES).map(([name, [first]]) => [name, first])),
    /** heads of a set, [layer, head] each */ set: [],
    /** share of the colour bar below which nothing is painted */ least: 0,
    /** @type {Pin|null} */ pin: null,
  };

  /** Changes settings; those that stay the same are no change. */
  function look(patch) {
    const changed = Object.keys(patch).filter((name) => JSON.stringify(looks[name]) !== JSON.stringify(patch[name]));
    if (!changed.length) return;
    Object.assign(looks, patch);
    glassbox.emit('look', changed);
  }

  // ---- sights ----

  /** @typedef {{key: string, args: object, kind: string}} Sight what the server is asked for, under a name */

  const allOf = (layer) => Array.from({ length: store.model.n_head }, (_, head) => [layer, head]);

  /** Which heads, and how they are mixed. */
  function headsOf({ layer, head }, over, set) {
    const [group, mix = 'mean'] = over.split('-');
    if (group === 'rollout') return { heads: [[layer, 0]], mix: 'rollout' };
    if (group === 'layer') return { heads: allOf(layer), mix };
    if (group === 'set' && set.length) return { heads: set, mix };
    return { heads: [[layer, head]], mix: 'mean' };
  }

  /** A rollout has weights only; renormalising is a quantity of its own. */
  function quantityOf(mix) {
    if (mix === 'rollout') return 'weight';
    return looks.what === 'weight' && looks.sink === 'rest' ? 'rest' : looks.what;
  }

  const named = (args) => ({ key: JSON.stringify(args), args, kind: args.minus ? 'difference' : args.what });

  /**
   * What is looked at at a place. A head under the pointer is previewed alone.
   * @param {{layer: number, head: number}} place
   * @returns {Sight}
   */
  function sightAt(place, over = looks.over, set = looks.set) {
    const chosen = headsOf(place, over, set);
    return named({ ...chosen, what: quantityOf(chosen.mix) });
  }

  /** What is pinned, as the map would show it. */
  function pinnedSight() {
    const { pin } = looks;
    const { args } = sightAt(pin, pin.over, pin.set);
    return pin.branch === store.branch ? named(args) : named({ ...args, branch: pin.branch });
  }

  /** The pinned sight less the one at a place; null where a rollout takes part. */
  function differenceAt(place) {
    const { what, ...minus } = sightAt(place).args;
    const { args } = pinnedSight();
    if (minus.mix === 'rollout' || args.mix === 'rollout') return null;
    return named({ ...args, what, minus });
  }

  const isPreview = (place) =>
    place.layer !== store.selection.layer || place.head !== store.selection.head;

  /** What is looked at now: what is hovered, else what is selected. */
  function currentSight() {
    const place = glassbox.looking();
    return isPreview(place) && !looks.over.startsWith('layer') ? sightAt(place, 'head') : sightAt(place);
  }

  /** What was read, as weights, by the heads that are looked at: what the chat is tinted with. */
  function readingSight() {
    const { args } = currentSight();
    return named({ ...args, what: args.what === 'rest' ? 'rest' : 'weight' });
  }

  /** A sight's name in the page's language: 'Layer 15, head 6'. */
  function sightName({ args }) {
    const { t } = glassbox;
    const [[layer, head]] = args.heads;
    if (args.mix === 'rollout') return t('attn_name_rollout', layer);
    if (args.heads.length === 1) return t('attn_name', layer, head);
    const whole = args.heads.length === store.model.n_head && args.heads.every(([l]) => l === layer);
    return whole
      ? t(`attn_name_layer_${args.mix}`, layer)
      : t(`attn_name_set_${args.mix}`, args.heads.length);
  }

  /** The same in a few characters: 'L15 H6'. */
  function shortName({ args }) {
    const { t } = glassbox;
    const [[layer, head]] = args.heads;
    if (args.mix === 'rollout') return `L0–${layer}`;
    if (args.heads.length === 1) return `L${layer} H${head}`;
    return args.heads.every(([l]) => l === layer) ? `L${layer} ${t(`mix_${args.mix}`)}` : t('attn_heads_n', args.heads.length);
  }

  // ---- changing what is looked at ----

  const sameHead = (a, b) => a[0] === b[0] && a[1] === b[1];

  /** Takes a head into the set, or out of it; a set that begins holds the selected head too. */
  function toggleHead(layer, head) {
    const { selection } = store;
    const one = [layer, head];
    const set = looks.set.length ? looks.set : [[selection.layer, selection.head]];
    const next = set.some((other) => sameHead(other, one))
      ? set.filter((other) => !sameHead(other, one))
      : [...set, one];
    const over = looks.over.startsWith('set') ? looks.over : 'set-mean';
    return next.length > 1 ? look({ set: next, over }) : look({ set: [], over: 'head' });
  }

  /** Pins what is looked at; once more lets go of it. */
  function togglePin() {
    const { layer, head, position } = store.selection;
    const { over, set } = looks;
    look({ pin: looks.pin ? null : { layer, head, over, set, position, branch: store.branch } });
  }

  const turn = (name) => {
    const choices = CHOICES[name];
    look({ [name]: choices[(choices.indexOf(looks[name]) + 1) % choices.length] });
  };

  // what belongs to another conversation or model is let go
  glassbox.on('tokens', ({ truncated }) => {
    if (truncated && looks.pin && looks.pin.position >= store.tokens.length) look({ pin: null });
  });

  glassbox.on('branches', () => {
    const { pin } = looks;
    if (pin && !store.branches.some(({ id }) => id === pin.branch)) look({ pin: null });
  });

  Object.assign(glassbox, {
    looks,
    look,
    lookChoices: CHOICES,
    sights: { sightAt, pinnedSight, differenceAt, currentSight, readingSight, sightName, shortName, toggleHead, togglePin, turn },
  });
})();
