/** What an empty conversation shows: what this is, which model runs, and prompts to begin with. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const { el } = glassbox.dom;

  const EXAMPLES = ['question', 'story', 'summary', 'translation', 'code', 'service'];
  const SMALL_BYTES = 2e9; // below this a model is warned about

  function example(name) {
    const button = el('button', 'example');
    button.type = 'button';
    button.append(el('b', '', glassbox.t(`ex_${name}`)), el('span', '', glassbox.t(`ex_${name}_text`)));
    button.addEventListener('click', () => glassbox.actions.send(glassbox.t(`ex_${name}_text`)));
    return button;
  }

  function modelText() {
    const { t } = glassbox;
    const { name, n_layer: layers, n_head: heads, memory_bytes: bytes } = store.model;
    const small = bytes && bytes < SMALL_BYTES ? t('welcome_small') : '';
    return `${t('welcome_model', name, layers, heads)} ${small}`;
  }

  /** Fills `node` with the welcome; the examples wait for the model. */
  function drawWelcome(node) {
    const { t } = glassbox;
    const drawn = [store.lang, store.sid, store.epoch].join();
    if (node.dataset.drawn === drawn) return; // what is being written there stays
    node.dataset.drawn = drawn;
    node.replaceChildren(el('h2', '', t('welcome_title')), el('p', '', t('welcome_text')));
    if (!store.model) {
      node.append(el('p', 'wait', t('connecting')));
      return;
    }
    node.append(el('p', 'small', modelText()), glassbox.systemLine(), el('h3', '', t('welcome_try')));
    const list = el('div', 'examples');
    list.append(...EXAMPLES.map(example));
    node.append(list);
  }

  function prompt(name) {
    const button = el('button', 'chip', glassbox.t(`ex_${name}`));
    button.type = 'button';
    button.title = glassbox.t(`ex_${name}_text`);
    button.addEventListener('click', () => glassbox.actions.send(glassbox.t(`ex_${name}_text`)));
    return button;
  }

  /** What stands under the recorded conversation: what it is, and prompts to begin one's own with. */
  function drawExample(node) {
    const { t } = glassbox;
    node.hidden = !store.example;
    if (node.hidden) return;
    const chips = el('div', 'chips');
    chips.append(...EXAMPLES.map(prompt));
    node.replaceChildren(el('p', '', t('example_note')), chips);
  }

  Object.assign(glassbox, { drawWelcome, drawExample });
})();
