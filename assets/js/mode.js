/**
 * Chat or completion: whether what is typed is a message, or the start of a text that the model goes on with. A base
 * model has no such switch, but a line that says so.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const { el } = glassbox.dom;

  const MODES = [
    ['chat', false],
    ['raw', true],
  ];

  const isText = () => store.tokens.some(({ role }) => role === 'text');

  /** What the empty message box says. */
  function placeholder() {
    const { t } = glassbox;
    if (!store.raw) return t('placeholder');
    return isText() ? t('placeholder_more') : t('placeholder_plain');
  }

  /** Changes the mode; what stands there stays, and the other kind begins in a branch of its own. */
  async function choose(raw) {
    if (raw === store.raw || !(await glassbox.actions.setMode(raw))) return;
    if (store.tokens.length && !store.example && isText() !== raw) {
      glassbox.toast(glassbox.t(raw ? 'mode_next_raw' : 'mode_next_chat'));
    }
    document.getElementById('message').focus();
  }

  function draw(node) {
    const base = store.model && !store.model.chat;
    node.hidden = !store.model;
    node.classList.toggle('fixed', Boolean(base));
    node.querySelector('.base').hidden = !base;
    for (const button of node.querySelectorAll('button')) {
      button.hidden = base;
      button.setAttribute('aria-pressed', String((button.dataset.mode === 'raw') === store.raw));
    }
    node.title = glassbox.t(base ? 'mode_base_tip' : 'mode_tip');
  }

  /** The switch that stands over the message box. */
  function modeSwitch() {
    const node = el('div', 'seg sm mode');
    node.id = 'mode';
    node.setAttribute('role', 'group');
    for (const [mode, raw] of MODES) {
      const button = el('button');
      button.type = 'button';
      button.dataset.mode = mode;
      button.dataset.t = `mode_${mode}`;
      button.addEventListener('click', () => choose(raw));
      node.append(button);
    }
    const base = el('span', 'base');
    base.dataset.t = 'mode_base';
    node.append(base);
    const redraw = () => {
      node.setAttribute('aria-label', glassbox.t('mode_tip'));
      draw(node);
    };
    for (const topic of ['hello', 'mode', 'lang']) glassbox.on(topic, redraw);
    redraw();
    return node;
  }

  Object.assign(glassbox, { modeSwitch, placeholder });
})();
