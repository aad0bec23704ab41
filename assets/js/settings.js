/**
 * Sampling settings in words: what a filter and a setting are called, what changed between two, which ones sample
 * alike.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, parameters } = glassbox;

  /** Short names of the numbers that shape a distribution, in the order in which they are told. */
  const SHORT = {
    temperature: 'T',
    dynatemp_range: 'T ±',
    dynatemp_exponent: 'T exp',
    top_k: 'top-k',
    top_p: 'top-p',
    min_p: 'min-p',
    typical_p: 'typical',
    top_a: 'top-a',
    tfs_z: 'tfs',
    top_n_sigma: 'n-sigma',
    epsilon_cutoff: 'ε',
    eta_cutoff: 'η',
    xtc_probability: 'XTC',
    xtc_threshold: 'XTC min',
    mirostat_tau: 'miro',
    mirostat_eta: 'miro η',
    repetition_penalty: 'rep',
    presence_penalty: 'pres',
    frequency_penalty: 'freq',
    dry_multiplier: 'DRY',
    dry_base: 'DRY base',
    dry_allowed_length: 'DRY len',
    penalty_window: 'window',
    no_repeat_ngram: 'n-gram',
    min_new_tokens: 'min tok',
  };
  const LISTS = ['dry_breakers', 'logit_bias', 'banned', 'grammar', 'order'];
  const TOLD = [...Object.keys(SHORT), ...LISTS];
  const PARTS = 3; // of a flag; what more has changed is counted

  /** What a filter is called. */
  const filterName = (name) => glassbox.t(`filter_${name}`);

  const grammarName = (grammar) => (grammar ? glassbox.t(`set_grammar_${grammar[0]}`) : glassbox.t('samp_off'));
  const listName = (key) => glassbox.t(`set_${key}`);

  /** The order of those filters only that act; null when it is the usual one. */
  function effectiveOrder(params) {
    const active = parameters.activeFilters(params);
    const usual = (store.order || []).filter((name) => active.includes(name));
    return parameters.same(active, usual) ? null : active;
  }

  /** The value at which a parameter is left out. */
  const restOf = (key) => (key in store.neutral ? store.neutral[key] : store.defaults[key]);

  /** A parameter's value where it does something that need be told, else undefined. Temperature always is. */
  function valueOf(params, key) {
    if (key === 'temperature') return params.temperature;
    if (key === 'order') return effectiveOrder(params) || undefined;
    const value = params[key];
    const resting = value === undefined || !parameters.acts(params, key);
    return resting || parameters.same(value, restOf(key)) ? undefined : value;
  }

  function partOf(key, value) {
    if (key in SHORT) return `${SHORT[key]} ${value}`;
    if (key === 'grammar') return grammarName(value);
    return key === 'order' ? glassbox.t('set_own_order') : `${listName(key)} ${value.length}`;
  }

  /** Parts, the first of them in full. */
  const atMost = (parts) =>
    parts.length > PARTS + 1
      ? [...parts.slice(0, PARTS), glassbox.t('set_more', parts.length - PARTS)].join(', ')
      : parts.join(', ');

  // ---- differences ----

  const ADDED = (n) => (n > 0 ? `+${n}` : `−${-n}`);

  function listChange(key, before, after) {
    const grown = (after || []).length - (before || []).length;
    if (key === 'order') return glassbox.t('set_order_changed');
    if (key === 'grammar') return `${listName(key)} ${grammarName(before)} → ${grammarName(after)}`;
    return grown ? `${listName(key)} ${ADDED(grown)}` : glassbox.t('set_changed', listName(key));
  }

  function changeOf(key, before, after) {
    const values = [before, after].map((params) => valueOf(params, key));
    if (parameters.same(...values)) return null;
    if (!(key in SHORT)) return listChange(key, ...values);
    const shown = values.map((value) => value ?? restOf(key));
    return `${SHORT[key]} ${shown.join(' → ')}`;
  }

  /** Differences between two settings as 'T 0.7 → 0', the text of a flag. */
  const settingsChange = (before, after) =>
    atMost(TOLD.map((key) => changeOf(key, before, after)).filter(Boolean));

  // ---- labels ----

  /** One setting as parts 'T 0.7', 'top-k 40': what is off is left out; `keys` limits it to some parameters. */
  const partsOf = (setting, keys = TOLD) =>
    keys
      .map((key) => [key, valueOf(setting, key)])
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => partOf(key, value));

  const settingsLabel = (setting, keys) => partsOf(setting, keys).join(', ');

  /** What two settings that sample alike have in common. */
  const identity = (setting) => JSON.stringify(TOLD.map((key) => valueOf(setting, key) ?? null));

  let counted = { length: -1, newest: null, bands: [], distinct: [], labels: {} };

  /** Band of each of the settings used so far, and one setting of each band, in order of appearance. */
  function bands() {
    const { settings } = store;
    const newest = settings[settings.length - 1];
    if (counted.newest === newest && counted.length === settings.length) return counted;
    const found = new Map();
    const numbers = settings.map((setting) => {
      const key = identity(setting);
      if (!found.has(key)) found.set(key, { band: found.size, setting });
      return found.get(key).band;
    });
    const distinct = [...found.values()].map(({ setting }) => setting);
    counted = { length: settings.length, newest, bands: numbers, distinct, labels: {} };
    return counted;
  }

  function labelsOf(distinct) {
    const varies = (key) =>
      distinct.some((setting) => !parameters.same(valueOf(setting, key), valueOf(distinct[0], key)));
    const keys = TOLD.filter((key) => key === 'temperature' || varies(key));
    return distinct.map((setting) => atMost(partsOf(setting, keys)));
  }

  /**
   * Short labels of the distinct settings: the temperature, and what is not the same in all of them. Asked for at
   * every token, made when there is another setting.
   */
  function bandLabels() {
    const { distinct, labels } = bands();
    labels[store.lang] ||= labelsOf(distinct);
    return labels[store.lang];
  }

  /** Index of a setting among the distinct ones: settings that sample alike share a look. */
  const bandOf = (par) => bands().bands[par];

  Object.assign(glassbox, { filterName, settingsChange, settingsLabel, bandLabels, bandOf });
})();
