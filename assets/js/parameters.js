/**
 * What the page knows of the sampling parameters: which of them act, which filter each belongs to, and the numbers
 * that have a slider. Names, limits, neutral values and filters are the server's (store.neutral, store.filters).
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;

  /** Parameter -> the switches of which one must be on for it to do anything. */
  const NEEDS = {
    dynatemp_exponent: ['dynatemp_range'],
    xtc_threshold: ['xtc_probability'],
    mirostat_eta: ['mirostat_tau'],
    penalty_window: ['repetition_penalty', 'presence_penalty', 'frequency_penalty', 'dry_multiplier'],
    dry_base: ['dry_multiplier'],
    dry_allowed_length: ['dry_multiplier'],
    dry_breakers: ['dry_multiplier'],
  };

  const off = (wordAt) => ({ neutral: wordAt, word: 'samp_off', wordAt });
  const share = { min: 0, max: 1, step: 0.01, digits: 2 };
  const above = { ...share, min: 0.01, above: true, ...off(1) };
  const log = { min: 0, step: 1, digits: 0, curve: 'log' };
  const cutoff = { ...log, low: 1e-5, max: 0.1, digits: 2, ...off(0) };
  const penalty = { min: -2, max: 2, step: 0.1, digits: 2, ...off(0) };

  /**
   * The numbers, by the group that shows them.
   * @type {Object<string, import('./slider').Setting[]>}
   */
  const NUMBERS = {
    main: [
      { key: 'temperature', min: 0, max: 2, step: 0.05, digits: 2, neutral: 1, word: 'samp_greedy', wordAt: 0 },
      { key: 'top_k', ...log, low: 1, max: 1000, ...off(0) },
      { key: 'top_p', ...above },
      { key: 'min_p', ...share, max: 0.5, ...off(0) },
    ],
    temperature: [
      { key: 'dynatemp_range', min: 0, max: 2, step: 0.05, digits: 2, ...off(0) },
      { key: 'dynatemp_exponent', min: 0.1, max: 5, step: 0.1, digits: 2, neutral: 1 },
    ],
    tail: [
      { key: 'typical_p', ...above },
      { key: 'top_a', ...share, ...off(0) },
      { key: 'tfs_z', ...above },
      { key: 'top_n_sigma', min: 0, max: 5, step: 0.1, digits: 1, ...off(0) },
      { key: 'epsilon_cutoff', ...cutoff },
      { key: 'eta_cutoff', ...cutoff },
    ],
    xtc: [
      { key: 'xtc_probability', ...share, step: 0.05, ...off(0) },
      { key: 'xtc_threshold', ...share, max: 0.5 },
    ],
    mirostat: [
      { key: 'mirostat_tau', min: 0, max: 10, step: 0.1, digits: 1, ...off(0) },
      { key: 'mirostat_eta', ...share },
    ],
    repetition: [
      { key: 'repetition_penalty', min: 0.5, max: 2, step: 0.05, digits: 2, ...off(1) },
      { key: 'presence_penalty', ...penalty },
      { key: 'frequency_penalty', ...penalty },
      { key: 'dry_multiplier', min: 0, max: 5, step: 0.05, digits: 2, ...off(0) },
      { key: 'dry_base', min: 1, max: 4, step: 0.05, digits: 2 },
      { key: 'dry_allowed_length', min: 1, max: 20, step: 1, digits: 0 },
      { key: 'penalty_window', ...log, low: 1, max: 4096, neutral: 0, word: 'samp_all_tokens', wordAt: 0 },
      { key: 'no_repeat_ngram', min: 0, max: 20, step: 1, digits: 0, ...off(0) },
    ],
    length: [
      { key: 'min_new_tokens', ...log, low: 1, max: 1024, ...off(0) },
      { key: 'max_new_tokens', ...log, min: 1, low: 1, max: 4096 },
    ],
  };

  /** Whether two values, plain or lists, are the same. */
  const same = (a, b) => a === b || JSON.stringify(a) === JSON.stringify(b);

  /** Whether a switch is off its neutral value. */
  const isOn = (params, key) =>
    key in store.neutral && key in params && !same(params[key], store.neutral[key]);

  /** Whether a parameter can do anything under these settings. */
  const acts = (params, key) => !(key in NEEDS) || NEEDS[key].some((name) => isOn(params, name));

  const switchesOf = (filter) => (store.filters[filter] || []).slice(0, filter === 'temperature' ? 2 : 1);

  /** The filters that do something, in the order in which they act. */
  const activeFilters = (params) =>
    (params.order || []).filter((name) => switchesOf(name).some((key) => isOn(params, key)));

  /** The filter that a parameter switches on, '' for one that is no switch. */
  const filterOf = (key) => Object.keys(store.filters).find((name) => switchesOf(name).includes(key)) || '';

  glassbox.parameters = { NEEDS, NUMBERS, same, isOn, acts, activeFilters, filterOf };
})();
