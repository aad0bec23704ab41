/**
 * Sampling settings in words: what a setting is called, what changed between two, which ones sample alike.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;

  /**
   * Short names of what shapes a distribution, and the value at which each does nothing (temperature always
   * acts).
   */
  const SAMPLING = {
    temperature: ['T', null],
    top_k: ['top-k', 0],
    top_p: ['top-p', 1],
    min_p: ['min-p', 0],
    repetition_penalty: ['rep', 1],
    presence_penalty: ['pres', 0],
    frequency_penalty: ['freq', 0],
  };

  /** Differences between two settings as 'T 0.7 → 0', the text of a flag. */
  const settingsChange = (before, after) =>
    Object.entries(SAMPLING)
      .filter(([key]) => before[key] !== after[key])
      .map(([key, [name]]) => `${name} ${before[key]} → ${after[key]}`)
      .join(', ');

  /** One setting as 'T 0.7, top-k 40': what is off is left out; `keys` limits it to some parameters. */
  const settingsLabel = (setting, keys = Object.keys(SAMPLING)) =>
    keys
      .filter((key) => setting[key] != null && setting[key] !== SAMPLING[key][1])
      .map((key) => `${SAMPLING[key][0]} ${setting[key]}`)
      .join(', ');

  /** The distinct ways of sampling used so far, in order of appearance. */
  function distinctSettings() {
    const found = new Map();
    for (const setting of store.settings) {
      const label = settingsLabel(setting);
      if (!found.has(label)) found.set(label, setting);
    }
    return [...found.values()];
  }

  /** Short labels of the distinct settings: the temperature, and what is not the same in all of them. */
  function bandLabels() {
    const settings = distinctSettings();
    const keys = Object.keys(SAMPLING).filter(
      (key) => key === 'temperature' || settings.some((setting) => setting[key] !== settings[0][key]),
    );
    return settings.map((setting) => settingsLabel(setting, keys));
  }

  /** Index of a setting among the distinct ones: settings that sample alike share a look. */
  const bandOf = (par) =>
    distinctSettings().findIndex((setting) => settingsLabel(setting) === settingsLabel(store.settings[par]));

  Object.assign(glassbox, { settingsChange, settingsLabel, bandLabels, bandOf });
})();
