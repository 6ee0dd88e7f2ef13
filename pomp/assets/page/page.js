// The threshold moves without a new prediction: everything that depends on it carries its scores.
window.pompThreshold = (threshold) => {
  const reached = (element, score) => ("strictly" in element.dataset ? score > threshold : score >= threshold);
  for (const element of document.querySelectorAll("#answer [data-score]"))
    element.toggleAttribute("hidden", !reached(element, Number(element.dataset.score)));
  for (const element of document.querySelectorAll("#answer [data-below]"))
    element.toggleAttribute("hidden", reached(element, Number(element.dataset.below)));
  for (const element of document.querySelectorAll("#answer [data-scores]"))
    element.textContent = element.dataset.scores.split(" ").filter((score) => score && score >= threshold).length;
};

// A download comes as text and never lies on the server's disk.
window.pompDownload = (file) => {
  if (!file || !file.name) return;
  const bytes = Uint8Array.from(atob(file.data), (letter) => letter.charCodeAt(0));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes]));
  link.download = file.name;
  link.click();
  URL.revokeObjectURL(link.href);
};
