/** What an empty conversation shows: what this is, which model runs, and prompts to begin with. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const { el } = glassbox.dom;

  const EXAMPLES = ['question', 'story', 'summary', 'translation', 'code', 'service'];
  const STARTS = ['tale', 'talk', 'recipe', 'list'];
  const SMALL_BYTES = 2e9; // below this a model is warned about

  /** What can be sent to begin with: questions, or in completion mode the starts of texts. [its name, its text] */
  function offers() {
    const { t } = glassbox;
    if (store.raw) return STARTS.map((name) => [t(`start_${name}`), t(`start_${name}_text`)]);
    return EXAMPLES.map((name) => [t(`ex_${name}`), t(`ex_${name}_text`)]);
  }

  function example([name, text]) {
    const button = el('button', 'example');
    button.type = 'button';
    button.append(el('b', '', name), el('span', '', text));
    button.addEventListener('click', () => glassbox.actions.send(text));
    return button;
  }

  function modelText() {
    const { t } = glassbox;
    const { name, n_layer: layers, n_head: heads, memory_bytes: bytes, chinese } = store.model;
    const small = bytes && bytes < SMALL_BYTES ? t('welcome_small') : '';
    const english = chinese === false ? t('welcome_english') : '';
    return [t('welcome_model', name, layers, heads), small, english].filter(Boolean).join(' ');
  }

  /** What completion mode is, and why a base model has no other. */
  function modeText() {
    if (!store.raw) return [];
    const key = store.model.chat ? 'welcome_raw' : 'welcome_base';
    return [el('p', 'plainly', glassbox.t(key))];
  }

  /** Fills `node` with the welcome; the examples wait for the model. */
  function drawWelcome(node) {
    const { t } = glassbox;
    const drawn = [store.lang, store.sid, store.epoch, store.raw].join();
    if (node.dataset.drawn === drawn) return; // what is being written there stays
    node.dataset.drawn = drawn;
    const title = t(store.raw ? 'welcome_title_raw' : 'welcome_title');
    node.replaceChildren(el('h2', '', title), el('p', '', t('welcome_text')));
    if (!store.model) {
      node.append(el('p', 'wait', t('connecting')));
      return;
    }
    node.append(...modeText(), el('p', 'small', modelText()), glassbox.systemLine(), el('h3', '', t('welcome_try')));
    const list = el('div', 'examples');
    list.append(...offers().map(example));
    node.append(list);
  }

  function prompt([name, text]) {
    const button = el('button', 'chip', name);
    button.type = 'button';
    button.title = text;
    button.addEventListener('click', () => glassbox.actions.send(text));
    return button;
  }

  /** What stands under the recorded conversation: what it is, and prompts to begin one's own with. */
  function drawExample(node) {
    const { t } = glassbox;
    node.hidden = !store.example;
    if (node.hidden) return;
    const chips = el('div', 'chips');
    chips.append(...offers().map(prompt));
    node.replaceChildren(el('p', '', t('example_note')), chips);
  }

  Object.assign(glassbox, { drawWelcome, drawExample });
})();
