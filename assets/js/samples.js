/**
 * Several replies to one prompt: how many, each with another seed or on a ladder of temperatures. The card where that
 * is chosen, and what is asked of the server.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, actions } = glassbox;
  const { el, translate } = glassbox.dom;

  const LEAST = 2;
  const MOST = 8;
  const STEP = 0.05;

  /** What was chosen last; it stays for the next time. */
  const choice = { n: 4, mode: 'seeds', values: [0.4, 0.8, 1.2, 1.6] };

  let layer = null;

  // ---- the ladder ----

  const hundredths = (x) => Math.round(x * 100) / 100;

  /** `n` values evenly from `low` to `high`. */
  const spread = (low, high, n) =>
    Array.from({ length: n }, (_, at) => hundredths(low + ((high - low) * at) / (n - 1)));

  function setCount(n) {
    choice.n = Math.max(LEAST, Math.min(MOST, n));
    choice.values = spread(choice.values[0], choice.values.at(-1), choice.n);
    glassbox.emit('samples-choice');
  }

  /** The first and the last value spread those between them; one of those stands for itself. */
  function setValue(at, value) {
    const { values, n } = choice;
    const [low, high] = store.limits.temperature || [0, 2];
    if (!Number.isFinite(value)) return;
    values[at] = hundredths(Math.max(low, Math.min(high, value)));
    if (at === 0 || at === n - 1) choice.values = spread(values[0], values[n - 1], n);
  }

  // ---- asking ----

  function request(text) {
    const { n, mode, values } = choice;
    const args = { n, ...(text != null && { text }) };
    if (mode === 'ladder') {
      const ladder = { name: 'temperature', values: values.slice(0, n) };
      return { ...args, seeds: Array(n).fill(store.seed), ladder };
    }
    return { ...args, seeds: Array.from({ length: n }, actions.freshSeed) };
  }

  async function ask(text) {
    if (!(await actions.askSamples(request(text)))) return false;
    glassbox.showSamples();
    return true;
  }

  /** Answers what is written in the message box several times. */
  const sendDraft = () => glassbox.submitDraft(ask);

  /** Writes the last reply several times. */
  const again = () => (actions.hasReply() ? ask() : Promise.resolve(false));

  // ---- the card ----

  function segment(label, options, chosen, choose) {
    const group = el('div', 'seg');
    group.setAttribute('role', 'group');
    group.setAttribute('aria-label', label);
    for (const [value, text] of options) {
      const button = el('button', '', text);
      button.type = 'button';
      button.dataset.value = value;
      button.setAttribute('aria-pressed', String(value === chosen));
      button.addEventListener('click', () => {
        choose(value);
        draw(button.dataset.value);
      });
      group.append(button);
    }
    return group;
  }

  function field(label, control) {
    const row = el('div', 'field');
    row.append(el('span', 'lab', label), control);
    return row;
  }

  function valueBox(value, at) {
    const [low, high] = store.limits.temperature || [0, 2];
    const box = el('input', 'num');
    Object.assign(box, { type: 'number', min: low, max: high, step: STEP, value });
    box.dataset.at = at;
    box.setAttribute('aria-label', glassbox.t('samples_value', at + 1));
    box.addEventListener('change', () => {
      setValue(at, box.valueAsNumber);
      layer.node.querySelectorAll('.ladder input').forEach((one, i) => {
        one.value = choice.values[i];
      });
    });
    box.addEventListener('keydown', (event) => event.key !== 'Escape' && event.stopPropagation());
    return box;
  }

  function ladder() {
    const boxes = el('div', 'ladder');
    boxes.append(...choice.values.slice(0, choice.n).map(valueBox));
    return boxes;
  }

  function goButton(id, text, action, enabled) {
    const button = el('button', 'btn', text);
    button.type = 'button';
    button.id = id;
    button.disabled = !enabled;
    button.addEventListener('click', () => {
      layer.close();
      action();
    });
    return button;
  }

  function buttons() {
    const { t } = glassbox;
    const row = el('div', 'row');
    const draft = glassbox.hasDraft();
    row.append(
      el('span', 'grow'),
      goButton('samples-again', t('samples_again', choice.n), again, actions.hasReply()),
      goButton('samples-send', t('samples_send', choice.n), sendDraft, draft),
    );
    (draft ? row.lastChild : row.children[1]).classList.add('strong');
    return row;
  }

  function rows() {
    const { t } = glassbox;
    const counts = Array.from({ length: MOST - LEAST + 1 }, (_, at) => [at + LEAST, at + LEAST]);
    const modes = ['seeds', 'ladder'].map((mode) => [mode, t(`samples_by_${mode}`)]);
    const found = [
      field(t('samples_n'), segment(t('samples_n'), counts, choice.n, setCount)),
      field(t('samples_by'), segment(t('samples_by'), modes, choice.mode, setMode)),
    ];
    if (choice.mode === 'ladder') found.push(field(t('samp_temperature'), ladder()));
    return [...found, el('p', 'hint', t(`samples_note_${choice.mode}`)), buttons()];
  }

  function setMode(mode) {
    choice.mode = mode;
  }

  /** Draws the card anew; the button with `value` keeps the focus. */
  function draw(value) {
    const { node } = layer;
    node.replaceChildren(node.firstChild, ...rows());
    translate(node);
    const button = value != null && node.querySelector(`[data-value="${value}"]`);
    if (button) button.focus();
    glassbox.layers.place(layer);
  }

  /** Opens the card at `anchor`, or closes it. */
  function showMenu(anchor) {
    layer = glassbox.layers.openCard({
      id: 'samples-menu',
      label: glassbox.t('several'),
      anchor,
      atEnd: true,
      fill: (node) => node.append(el('h2', '', glassbox.t('several')), ...rows()),
      onClose: () => {
        layer = null;
      },
    });
    if (!layer) return;
    const pressed = layer.node.querySelector('[aria-pressed=true]');
    if (pressed) pressed.focus();
  }

  glassbox.on('lang', () => layer && layer.close());
  glassbox.several = { showMenu, sendDraft, again, choice, setCount };
})();
