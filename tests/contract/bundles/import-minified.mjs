import{z as e}from"zod";import t from"jose";var r={fetch(){return new Response(e+t)}};export{r as default};
