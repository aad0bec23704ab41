/**
 * The model picker, a card at the model's name in the bar; on a phone it fills the screen. What is chosen is loaded
 * beside the model that runs, which goes on until the page goes over to the new one.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const { el, icon, iconButton, int } = glassbox.dom;

  function deviceName({ device, dtype }) {
    const kind = String(device || '')
      .split(':')[0]
      .toUpperCase();
    return glassbox.t('device_dtype', kind, String(dtype || '').replace('torch.', ''));
  }

  // ---- the card ----

  function now() {
    const { t } = glassbox;
    const { model } = store;
    const node = el('div', 'now');
    const shape = t('picker_shape', model.n_layer, model.n_head, int(model.block_size));
    const kind = t(model.chat ? 'picker_chat' : 'picker_base');
    node.append(el('span', 'lab', t('picker_now')), el('b', '', model.name));
    node.append(el('span', 'mut num', `${deviceName(model)} · ${kind} · ${shape}`));
    return node;
  }

  const same = (wish, current) =>
    current && ['name', 'device', 'dtype', 'revision'].every((key) => (wish[key] || null) === (current[key] || null));

  /** The picker's state while it is open: what is chosen, what that takes, and the foot that says so. */
  class Picker {
    constructor(card, known) {
      this.known = known;
      this.foot = el('div', 'foot');
      this.chooser = glassbox.modelChooser(known, (wait) => this.look(wait));
      this.asked = 0;
      this.shown = '';
      card.append(this.chooser.node, this.foot);
      this.draw();
    }

    /** Asks, `wait` ms from now, what the chosen model takes; the answer to an older question is not shown. */
    async look(wait) {
      const asked = ++this.asked;
      this.found = null;
      if (store.load && store.load.state === 'failed') glassbox.models.cancel();
      this.drawFoot([el('p', 'mut', glassbox.t('picker_asking'))]);
      await new Promise((done) => setTimeout(done, wait));
      if (asked !== this.asked) return;
      const found = await this.answer(this.chooser.wish());
      if (asked !== this.asked) return;
      this.found = found;
      this.draw();
    }

    async answer(wish) {
      if (!wish) return null;
      if (same(wish, this.known.current)) return { isCurrent: true };
      try {
        return { needed: await glassbox.rpc('estimate_model', wish) };
      } catch (error) {
        return { problem: error.message };
      }
    }

    async load() {
      try {
        await glassbox.models.begin(this.chooser.wish());
      } catch (error) {
        this.found = { problem: error.message };
        this.draw();
      }
    }

    /** While a bar moves nothing is read aloud but what is asked for. */
    drawFoot(nodes, live = 'polite') {
      this.foot.setAttribute('aria-live', live);
      this.foot.replaceChildren(...nodes);
    }

    /** What the foot shows by the state of the load; a bar that stands there is only brought up to date. */
    draw() {
      const { load } = store;
      const state = load ? load.state : 'choose';
      const fixed = ['loading', 'ready', 'busy'].includes(state);
      this.chooser.node.inert = fixed;
      this.chooser.node.classList.toggle('dim', fixed);
      if (state === 'loading') return this.drawLoading(load);
      const before = this.shown;
      this.shown = state;
      if (state === 'ready') return this.drawReady(load, before);
      if (state === 'busy') return this.drawFoot([glassbox.pickerFoot.busy()]);
      return this.drawChoice(state === 'failed' ? load.error : '');
    }

    drawLoading(load) {
      if (this.shown !== 'loading') {
        this.shown = 'loading';
        this.bar = glassbox.pickerFoot.progress();
        this.drawFoot([this.bar.node], 'off');
        this.foot.querySelector('#picker-cancel').focus();
      }
      this.bar.update(load);
    }

    /** With nothing to lose the page goes over at once, but not where the picker was opened again. */
    drawReady(load, before) {
      if (before === 'ready') return;
      this.drawFoot([glassbox.pickerFoot.whenReady(load.name)]);
      const go = this.foot.querySelector('#picker-switch');
      go.focus();
      if (before && !glassbox.models.hasConversation()) go.click();
    }

    drawChoice(failure) {
      const { pickerFoot, t } = glassbox;
      const { found } = this;
      const nodes = failure ? [pickerFoot.alertText(failure)] : [];
      if (found && found.problem) nodes.push(pickerFoot.alertText(found.problem));
      else if (failure) nodes.push(el('p', 'mut', t('picker_hint')));
      else if (found) nodes.push(...pickerFoot.beforeLoading(found, () => this.load()));
      else nodes.push(el('p', 'mut', t('picker_hint')));
      this.drawFoot(nodes);
    }
  }

  function fill(card, close) {
    const { t } = glassbox;
    const head = el('header');
    head.append(el('h2', '', t('picker_title')), el('span', 'grow'), iconButton('close', 'close', close, 'picker-close'));
    card.append(head, now());
    card.setAttribute('aria-modal', 'false');
    glassbox
      .rpc('picker', {})
      .then((known) => {
        if (!card.isConnected) return;
        glassbox.models.take(known.load);
        if (known.policy === 'fixed') card.append(el('p', 'fixed', t('picker_fixed_text')));
        else card.picker = new Picker(card, known);
        glassbox.layers.place(glassbox.layers.opened('picker'));
        const first = card.querySelector('.model[tabindex="0"]');
        if (first && !store.load) first.focus();
      })
      .catch((error) => card.append(glassbox.pickerFoot.alertText(error.message)));
  }

  /** Opens the picker at the model's name, or closes it. */
  function openPicker() {
    const anchor = document.getElementById('model');
    glassbox.layers.openCard({ id: 'picker', label: glassbox.t('picker_title'), anchor, fill });
  }

  glassbox.on('load', () => {
    const layer = glassbox.layers.opened('picker');
    if (!layer || !layer.node.picker) return;
    layer.node.picker.draw();
    glassbox.layers.place(layer);
  });

  // ---- the button in the bar ----

  function percent({ done, total }) {
    return total ? `${Math.round((100 * done) / total)} %` : '…';
  }

  function drawButton(button) {
    const { t } = glassbox;
    const { model, load } = store;
    button.disabled = !model;
    button.classList.toggle('wait', !model);
    const where = model ? deviceName(model) : '';
    const busy = load && load.state === 'loading' ? percent(load) : '';
    const parts = [el('b', '', model ? model.name : t('connecting'))];
    if (model) parts.push(el('span', 'dev', where), icon('down'));
    if (busy) parts.push(el('span', 'busy num', busy));
    button.replaceChildren(...parts);
    button.title = model ? t('picker_open', model.name, where) : '';
    button.setAttribute('aria-label', button.title || t('connecting'));
  }

  /** The model's name in the bar, where it runs, and how far another one is; it opens the picker. */
  function modelButton() {
    const button = el('button', 'model-btn');
    Object.assign(button, { type: 'button', id: 'model' });
    button.setAttribute('aria-haspopup', 'dialog');
    button.addEventListener('click', openPicker);
    for (const topic of ['hello', 'load', 'lang']) glassbox.on(topic, () => drawButton(button));
    drawButton(button);
    return button;
  }

  Object.assign(glassbox, { openPicker, modelButton });
})();
