// PostGraphile 5.1 is made for Node 22; this is all that it misses on Node 20, so that both contenders run on the same Node.
Promise.withResolvers ??= function () {
  let resolve
  let reject
  const promise = new this((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}
