// The conversation survives a reload; pictures are too large for localStorage, so IndexedDB keeps it.

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("ming", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("kept");
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function run(mode, act) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction("kept", mode);
    const request = act(transaction.objectStore("kept"));
    transaction.oncomplete = () => resolve(request.result); // only now would a reload find it
    transaction.onabort = () => reject(transaction.error);
  });
}

// A browser that keeps nothing (private windows) still chats.
export const load = () => run("readonly", (kept) => kept.get("messages")).then((m) => m ?? [], () => []);
export const save = (messages) => run("readwrite", (kept) => kept.put(messages, "messages")).catch(() => {});
