/**
 * Where a value stands on its slider, from 0 at the left to 1 at the right. Most are linear. Where a linear slider
 * is useless it is logarithmic, with room for 0 (off) at the left, or finer in the middle than at both ends.
 */
(() => {
  'use strict';
  const { glassbox } = window;

  const REST = 0.06; // share of a logarithmic slider that is kept for 0
  const NUDGE = 0.01; // of a curved slider, for one press of an arrow
  const WHOLE = 0; // digits of whole numbers

  const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
  const tidy = (value, digits) => (digits === WHOLE ? Math.round(value) : Number(value.toPrecision(2)));

  const linear = {
    at: ({ min, max }, value) => (value - min) / (max - min),
    value: ({ min, max, step, digits }, at) =>
      Number((min + Math.round((at * (max - min)) / step) * step).toFixed(digits)),
  };

  const rest = ({ min }) => (min === 0 ? REST : 0);

  const log = {
    at(setting, value) {
      const { low, max } = setting;
      if (value < low) return 0;
      return rest(setting) + (1 - rest(setting)) * (Math.log(value / low) / Math.log(max / low));
    },
    value(setting, at) {
      const { low, max, digits } = setting;
      if (at < rest(setting) / 2) return 0;
      const share = clamp((at - rest(setting)) / (1 - rest(setting)), 0, 1);
      return tidy(low * (max / low) ** share, digits);
    },
  };

  /** From -max to max, the square root to each side. */
  const signed = {
    at: ({ max }, value) => (1 + Math.sign(value) * Math.sqrt(Math.abs(value) / max)) / 2,
    value({ max }, at) {
      const side = 2 * at - 1;
      return tidy(Math.sign(side) * side * side * max, 1) || 0;
    },
  };

  const CURVES = { log, signed };
  const curveOf = ({ curve }) => CURVES[curve] || linear;

  /** Place of a value, 0 to 1. */
  const at = (setting, value) => clamp(curveOf(setting).at(setting, value), 0, 1);

  /** The value at a place, rounded to what the setting can take. */
  const valueAt = (setting, place) => curveOf(setting).value(setting, clamp(place, 0, 1));

  /** The value some presses of an arrow away; never the same one unless the end is reached. */
  function nudged(setting, value, presses) {
    const step = NUDGE * presses;
    for (let place = at(setting, value) + step; place > -NUDGE && place < 1 + NUDGE; place += step) {
      const next = valueAt(setting, place);
      if (next !== value) return next;
    }
    return valueAt(setting, presses > 0 ? 1 : 0);
  }

  glassbox.scale = { at, valueAt, nudged };
})();
