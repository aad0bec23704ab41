/**
 * A conversation as a file: saved with every branch and record, opened from the Share menu or by dropping it on the
 * page. What is open is never lost without a question.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, actions } = glassbox;
  const { el } = glassbox.dom;

  const LARGEST = 200e6; // bytes; no conversation that fits a context comes near

  let savedAs = '';

  // ---- saving ----

  /** What the conversation is like now; the same text means that nothing was added since. */
  const state = () => [store.sid, store.epoch, store.tokens.length, store.branches.length].join();

  /** 'glassbox-2026-01-31-why-is-the-sky-blue' and what follows. */
  function fileName(end) {
    const day = new Date().toISOString().slice(0, 10);
    const asked = store.tokens.filter(({ role, sp }) => (role === 'user' || role === 'text') && !sp);
    const words = asked
      .slice(0, 12)
      .map(({ s }) => s)
      .join('')
      .replace(/[^\p{L}\p{N}]+/gu, '-');
    const name = words
      .toLowerCase()
      .slice(0, 40)
      .replace(/^-+|-+$/g, '');
    return `glassbox-${day}${name && `-${name}`}${end}`;
  }

  /** Lets the browser keep what stands at an address, under a name. */
  function downloadFrom(href, name) {
    const link = el('a');
    Object.assign(link, { href, download: name });
    link.click();
  }

  /** Lets the browser keep data as a file. */
  function download(name, data, type) {
    const href = URL.createObjectURL(new Blob([data], { type }));
    downloadFrom(href, name);
    setTimeout(() => URL.revokeObjectURL(href), 10000);
  }

  /** Saves the conversation with all its branches; resolves to whether it worked. */
  async function save() {
    try {
      const { record } = await glassbox.rpc('save', {});
      download(fileName('.json'), JSON.stringify(record), 'application/json');
      savedAs = state();
      glassbox.toast(glassbox.t('file_saved'));
      return true;
    } catch (error) {
      glassbox.emit('error', { text: error.message });
      return false;
    }
  }

  // ---- opening ----

  /** The record in a file. Throws an Error that says what is wrong with it. */
  async function read(file) {
    if (file.size > LARGEST) throw new Error(glassbox.t('file_large', file.name));
    try {
      const record = JSON.parse(await file.text());
      if (record && typeof record === 'object' && !Array.isArray(record)) return record;
    } catch {
      // told below, as for any other file that holds no record
    }
    throw new Error(glassbox.t('file_not_ours', file.name));
  }

  /** Whether the conversation that is open may go: nothing is lost, or the person says so. */
  async function mayLeave(name) {
    if (store.example || !store.tokens.some(glassbox.sampled) || savedAs === state()) return true;
    const { t } = glassbox;
    const answer = await glassbox.ask(t('file_replace', name), [
      ['', t('cancel')],
      ['open', t('file_open_only')],
      ['save', t('file_save_first')],
    ]);
    return answer === 'open' || (answer === 'save' && save());
  }

  async function openFile(file) {
    try {
      const record = await read(file);
      if (!(await mayLeave(file.name)) || !(await actions.open(record))) return;
      savedAs = state();
      glassbox.toast(glassbox.t('file_opened', file.name));
    } catch (error) {
      glassbox.emit('error', { text: error.message });
    }
  }

  /** Lets the person choose a file. */
  function choose() {
    const input = el('input');
    input.type = 'file';
    input.accept = '.json,application/json';
    input.id = 'open-file';
    input.hidden = true;
    input.addEventListener('change', () => input.files[0] && openFile(input.files[0]));
    input.addEventListener('cancel', () => input.remove());
    const before = document.getElementById('open-file');
    if (before) before.remove();
    document.body.append(input);
    input.click();
  }

  // ---- dropping ----

  const hasFile = (event) => event.dataTransfer && [...event.dataTransfer.types].includes('Files');
  let sign = null;

  function showSign(on) {
    if (on && !sign) {
      sign = el('div', 'gb-layer drop', glassbox.t('file_drop'));
      document.body.append(sign);
    }
    if (!on && sign) {
      sign.remove();
      sign = null;
    }
  }

  window.addEventListener('dragover', (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    showSign(true);
  });
  window.addEventListener('dragleave', (event) => !event.relatedTarget && showSign(false));
  window.addEventListener('drop', (event) => {
    showSign(false);
    if (!hasFile(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
  });

  glassbox.files = { download, downloadFrom, fileName, save, choose, openFile };
})();
