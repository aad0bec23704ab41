/** The foot of the model picker: what a model takes, how far it is, and what happens to the conversation. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const { el } = glassbox.dom;

  const STAGES = ['wait', 'download', 'check', 'unpack', 'read'];

  function button(cls, id, key, action) {
    const node = el('button', cls, glassbox.t(key));
    Object.assign(node, { type: 'button', id });
    node.addEventListener('click', action);
    return node;
  }

  function line(...nodes) {
    const node = el('div', 'row');
    node.append(el('span', 'grow'), ...nodes);
    return node;
  }

  function alertText(text) {
    const node = el('p', 'problem', text);
    node.setAttribute('role', 'alert');
    return node;
  }

  function facts(pairs) {
    const list = el('dl', 'facts num');
    for (const [name, value, bad] of pairs) list.append(el('dt', '', name), el('dd', bad ? 'bad' : '', value));
    return list;
  }

  // ---- before loading ----

  /** What a model takes against what there is; one that does not fit cannot be loaded. */
  function beforeLoading({ needed, isCurrent }, load) {
    const { t, inWords } = glassbox;
    if (isCurrent) return [el('p', 'mut', t('picker_is_current'))];
    const { download, memory, free_memory: ram, free_disk: disk, precision, loaded } = needed;
    if (loaded) return [el('p', 'mut', t('picker_is_loaded')), line(button('btn strong', 'picker-load', 'picker_use', load))];
    const noDisk = download > disk;
    const noMemory = memory !== null && memory > ram;
    const nodes = [
      facts([
        [t('picker_download'), download ? t('picker_of_disk', inWords(download), inWords(disk)) : t('picker_nothing'), noDisk],
        [t('picker_memory'), memory === null ? t('picker_unknown', inWords(ram)) : t('picker_of_memory', inWords(memory), inWords(ram)), noMemory],
        [t('picker_dtype'), precision === 'stored' ? t('picker_stored') : precision],
      ]),
    ];
    if (noDisk || noMemory) nodes.push(alertText(t(noDisk ? 'picker_no_disk' : 'picker_no_memory')));
    else nodes.push(el('p', 'mut', t('picker_keeps')));
    const go = button('btn strong', 'picker-load', 'picker_load', load);
    go.disabled = noDisk || noMemory;
    nodes.push(line(go));
    return nodes;
  }

  // ---- while loading ----

  /** A bar and its figures, which are brought up to date where they stand. */
  function progress() {
    const { t } = glassbox;
    const node = el('div', 'progress');
    const head = el('div', 'row');
    const stage = el('b');
    const amount = el('span', 'mut num');
    head.append(stage, el('span', 'grow'), amount);
    const track = el('div', 'track');
    const fill = el('i');
    track.append(fill);
    track.setAttribute('role', 'progressbar');
    track.setAttribute('aria-label', t('picker_title'));
    const stop = button('btn', 'picker-cancel', 'cancel', glassbox.models.cancel);
    node.append(head, track, line(stop));
    const update = ({ name, stage: now, done, total, cancelled }) => {
      const what = STAGES.includes(now) ? t(`picker_stage_${now}`) : t('picker_starting');
      glassbox.dom.setText(stage, cancelled ? t('picker_cancelling') : `${glassbox.shortName(name)}: ${what}`);
      const { inWords } = glassbox;
      glassbox.dom.setText(amount, total > 1 ? t('picker_amount', inWords(done), inWords(total)) : done ? inWords(done) : '');
      const share = total > 1 ? Math.min(1, done / total) : 0;
      fill.style.width = `${100 * share}%`;
      track.classList.toggle('unknown', !(total > 1));
      if (total > 1) track.setAttribute('aria-valuenow', String(Math.round(100 * share)));
      else track.removeAttribute('aria-valuenow');
      track.setAttribute('aria-valuetext', `${stage.textContent} ${amount.textContent}`);
      stop.disabled = cancelled;
    };
    return { node, update };
  }

  // ---- when it is ready ----

  function way(value, name, note, checked) {
    const label = el('label', 'way');
    const input = el('input');
    Object.assign(input, { type: 'radio', name: 'picker-way', value, checked });
    label.append(input, el('b', '', name), el('span', '', note));
    return label;
  }

  /** Asks what happens to the conversation, if there is one, and goes over to the model. */
  function whenReady(name) {
    const { t, models } = glassbox;
    const form = el('form', 'ready');
    const ask = models.hasConversation();
    const ready = t('picker_ready', glassbox.shortName(name));
    form.append(el('p', '', ask ? `${ready} ${t('picker_what')}` : ready));
    if (ask) {
      const group = el('div', 'ways');
      group.setAttribute('role', 'radiogroup');
      group.setAttribute('aria-label', t('picker_what'));
      group.append(
        way('fresh', t('picker_fresh'), t('picker_fresh_note'), true),
        way('carry', t('picker_carry'), t('picker_carry_note'), false),
      );
      form.append(group);
    }
    const problem = el('div');
    const go = button('btn strong', 'picker-switch', 'picker_switch', () => {});
    go.type = 'submit';
    const row = el('div', 'row');
    if (ask) row.append(button('btn', 'picker-save', 'picker_save', () => glassbox.files.save()));
    row.append(el('span', 'grow'), button('btn', 'picker-keep', 'picker_keep', models.cancel), go);
    form.append(problem, row);
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      go.disabled = true;
      try {
        await models.use(ask && form.elements['picker-way'].value === 'carry');
      } catch (error) {
        problem.replaceChildren(alertText(error.message));
        go.disabled = false;
      }
    });
    return form;
  }

  glassbox.pickerFoot = { beforeLoading, progress, whenReady, alertText, busy: () => el('p', 'mut', glassbox.t('picker_busy', glassbox.shortName(store.load.name))) };
})();
