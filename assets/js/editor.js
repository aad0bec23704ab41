/**
 * A message edited where it stands: Enter sends it anew, Escape leaves it as it was. The old branch stays.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { el } = glassbox.dom;

  const grow = (box) => {
    box.style.height = 'auto';
    box.style.height = `${box.scrollHeight}px`;
  };

  function textButton(cls, key, action) {
    const button = el('button', cls, glassbox.t(key));
    button.type = 'button';
    button.addEventListener('click', action);
    return button;
  }

  function onKey(event, save, close) {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === 'Escape') close();
    else if (event.key === 'Enter' && !event.shiftKey) save();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Opens the editor in a bubble. A failure leaves it open with what was written. */
  function openEditor(bubble) {
    if (!bubble || bubble.node.querySelector('.editor')) return;
    const box = el('textarea');
    box.rows = 1;
    box.value = bubble.text;
    box.setAttribute('aria-label', glassbox.t('edit'));
    const form = el('div', 'editor');
    const close = () => {
      form.remove();
      bubble.node.classList.remove('editing');
    };
    const save = async () => {
      if (box.value.trim() && (await glassbox.actions.edit(bubble.m, box.value))) close();
      else box.focus();
    };
    const row = el('div', 'row');
    row.append(el('span', 'grow'), textButton('btn', 'cancel', close), textButton('btn strong', bubble.role === 'text' ? 'edit_text_send' : 'edit_send', save));
    form.append(box, row);
    box.addEventListener('keydown', (event) => onKey(event, save, close));
    box.addEventListener('input', () => grow(box));
    bubble.node.classList.add('editing');
    bubble.node.append(form);
    grow(box);
    box.focus();
  }

  glassbox.openEditor = openEditor;
})();
