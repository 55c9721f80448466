export default {
  fetch() {
    let x = ;
  },
};
