/** The models that can be picked: the list, a free entry, and how precisely and where they are to run. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const { el, icon } = glassbox.dom;

  const SETTLE_MS = 500; // of typing, until it is asked what a model takes

  /** Bytes in words: 98 MB, 1.5 GB. */
  const inWords = (bytes) =>
    bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.max(1, Math.round(bytes / 1e6))} MB`;

  /** 135M, 1.7B. */
  const count = (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(1)}B` : `${Math.round(n / 1e6)}M`);

  /** A model's name without the folders before it; owner/name stays whole. */
  const shortName = (name) => (/^[^/\\]+\/[^/\\]+$/.test(name) ? name : name.split(/[\\/]/).filter(Boolean).pop() || name);

  // ---- the list ----

  /** What there is to know of where it is: that it runs, is loaded, is on this disk, or what is to be fetched. */
  function whereText(model, known) {
    const { t } = glassbox;
    if (known.current && known.current.name === model.name) return t('picker_running');
    if (known.loaded.some(({ name }) => name === model.name)) return t('picker_loaded');
    return model.here ? `${t('picker_here')}, ${inWords(model.size)}` : `↓ ${inWords(model.size)}`;
  }

  function row(model, known) {
    const { t } = glassbox;
    const button = el('button', 'model');
    button.type = 'button';
    button.dataset.name = model.name;
    button.setAttribute('role', 'radio');
    const title = el('span', 'title');
    title.append(el('b', '', model.title));
    if (model.chinese) title.append(el('i', 'mark zh', '中文'));
    title.append(el('i', 'mark', t(model.chat ? 'picker_chat' : 'picker_base')));
    if (model.gated) {
      const gated = el('i', 'mark gated', t('picker_gated'));
      gated.title = t('picker_gated_tip');
      title.append(gated);
    }
    const facts = model.parameters ? `${count(model.parameters)} · ${model.licence}` : inWords(model.bytes);
    const good = (store.lang === 'zh' ? model.good_for_zh : model.good_for) || model.name;
    button.append(title, el('span', 'where', whereText(model, known)), el('span', 'good', good), el('span', 'facts num', facts));
    return button;
  }

  /** What is loaded but not listed, once each, then the list. */
  function rowsOf({ loaded, list }) {
    const names = new Set(list.map(({ name }) => name));
    const others = loaded.filter(({ name }) => !names.has(name) && names.add(name));
    return [...others, ...list];
  }

  /** Up and down walk through the list and choose, as radio buttons do. */
  function onKey(event, list, choose) {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!by) return;
    const rows = [...list.children];
    const at = (rows.indexOf(document.activeElement) + by + rows.length) % rows.length;
    rows[at].focus();
    choose(rows[at].dataset.name);
    event.preventDefault();
    event.stopPropagation();
  }

  function mark(list, name) {
    const rows = [...list.children];
    const chosen = rows.find(({ dataset }) => dataset.name === name);
    for (const one of rows) {
      one.setAttribute('aria-checked', String(one === chosen));
      one.tabIndex = one === (chosen || rows[0]) ? 0 : -1;
    }
  }

  // ---- free entry ----

  function field(id, key, tip) {
    const input = el('input');
    Object.assign(input, { id, type: 'text', autocomplete: 'off', spellcheck: false, placeholder: glassbox.t(key) });
    input.setAttribute('aria-label', glassbox.t(tip || key));
    return input;
  }

  function menu(id, key, values) {
    const label = el('label');
    const select = el('select');
    select.id = id;
    for (const value of ['', ...values]) {
      const option = el('option', '', value || glassbox.t('picker_auto'));
      option.value = value;
      select.append(option);
    }
    label.append(el('span', '', glassbox.t(key)), select);
    return { label, select };
  }

  /**
   * Everything that says which model is meant. `changed` hears of every change, and how many ms it may settle.
   * @returns {{node: HTMLElement, wish: () => object|null}}
   */
  function chooser(known, changed) {
    const { t } = glassbox;
    let listed = '';
    const list = el('div', 'models');
    list.setAttribute('role', 'radiogroup');
    list.setAttribute('aria-label', t('picker_list'));
    list.append(...rowsOf(known).map((model) => row(model, known)));
    const name = field('picker-name', 'picker_name', 'picker_other');
    const revision = field('picker-revision', 'picker_revision');
    const dtype = menu('picker-dtype', 'picker_dtype', known.dtypes);
    const device = menu('picker-device', 'picker_device', known.devices);
    const choose = (next) => {
      listed = next;
      name.value = '';
      // of one that is loaded, as it was asked for
      const there = known.loaded.find((one) => one.name === next) || {};
      revision.value = there.revision || '';
      dtype.select.value = there.dtype || '';
      device.select.value = there.device || '';
      mark(list, listed);
      changed(0);
    };
    const typed = (wait) => {
      listed = name.value.trim() ? '' : listed;
      mark(list, listed);
      changed(wait);
    };
    list.addEventListener('click', ({ target }) => target.closest('.model') && choose(target.closest('.model').dataset.name));
    list.addEventListener('keydown', (event) => onKey(event, list, choose));
    for (const input of [name, revision]) {
      input.addEventListener('input', () => typed(SETTLE_MS));
      input.addEventListener('keydown', (event) => event.key === 'Enter' && typed(0));
    }
    for (const { select } of [dtype, device]) select.addEventListener('change', () => changed(0));
    mark(list, listed);
    const free = el('div', 'free');
    const more = el('details', 'more');
    const inside = el('div', 'in');
    inside.append(dtype.label, device.label, revision);
    const summary = el('summary');
    summary.append(icon('right'), el('span', '', t('picker_advanced')));
    more.append(summary, inside);
    free.append(name);
    free.hidden = known.policy !== 'any';
    revision.hidden = known.policy !== 'any';
    const node = el('div', 'chooser');
    node.append(free, list, more);
    const wish = () => {
      const meant = name.value.trim() || listed;
      if (!meant) return null;
      const asked = { revision: revision.value.trim(), dtype: dtype.select.value, device: device.select.value };
      return { name: meant, ...Object.fromEntries(Object.entries(asked).filter(([, value]) => value)) };
    };
    return { node, wish };
  }

  Object.assign(glassbox, { modelChooser: chooser, inWords, shortName });
})();
